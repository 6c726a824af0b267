# syntax=docker/dockerfile:1
# Pin the base by digest in your own builds: --build-arg BASE_IMAGE=python:3.13-slim@sha256:...
ARG BASE_IMAGE=python:3.13-slim

FROM ${BASE_IMAGE} AS builder
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_NO_CACHE_DIR=1
WORKDIR /src
RUN ["python", "-m", "venv", "/build"]
RUN ["python", "-m", "venv", "--without-pip", "/opt/stream-consumer"]
# Dependencies first: this layer changes only with the locks. Only wheels, only with the hashes of the lock.
COPY requirements/runtime.lock requirements/build.lock ./requirements/
RUN ["/build/bin/pip", "install", "--require-hashes", "--only-binary", ":all:", "-r", "requirements/build.lock"]
RUN ["/build/bin/pip", "--python", "/opt/stream-consumer/bin/python", "install", \
     "--require-hashes", "--only-binary", ":all:", "-r", "requirements/runtime.lock"]
COPY pyproject.toml README.md LICENSE ./
COPY consumer ./consumer
RUN ["/build/bin/pip", "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", "/wheels", "."]
RUN ["/build/bin/pip", "--python", "/opt/stream-consumer/bin/python", "install", \
     "--no-deps", "--no-index", "--find-links", "/wheels", "dynamodb-stream-consumer"]

FROM ${BASE_IMAGE} AS runtime
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="dynamodb-stream-consumer" \
      org.opencontainers.image.description="A KCL-style asyncio worker daemon for Amazon DynamoDB Streams" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
# SAFEPATH: nothing is imported from the working directory unless handler.path says so.
ENV PATH=/opt/stream-consumer/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONFAULTHANDLER=1 \
    PYTHONSAFEPATH=1 \
    PYTHONUNBUFFERED=1
RUN groupadd --gid 10001 consumer \
 && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin consumer \
 && install --directory --owner=root --group=root --mode=0755 /app /etc/stream-consumer
COPY --from=builder /opt/stream-consumer /opt/stream-consumer
# Your image: FROM this one, COPY your handlers to /app and your config to /etc/stream-consumer/config.yaml.
WORKDIR /app
# The only place that is written to, if your handlers do: works with a read-only root file system.
VOLUME ["/tmp"]
USER 10001:10001
EXPOSE 9464
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 \
  CMD ["stream-consumer", "health", "--config", "/etc/stream-consumer/config.yaml"]
ENTRYPOINT ["stream-consumer"]
CMD ["run", "--config", "/etc/stream-consumer/config.yaml"]
