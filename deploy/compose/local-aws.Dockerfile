# The embedded AWS of `make local` in a container. Its context is the folder requirements.
ARG BASE_IMAGE=python:3.13-slim
FROM ${BASE_IMAGE}
WORKDIR /srv
RUN ["python", "-m", "venv", "/opt/local-aws"]
COPY local-aws.lock ./
RUN ["/opt/local-aws/bin/pip", "install", "--no-cache-dir", "--require-hashes", "-r", "local-aws.lock"]
ENV PATH=/opt/local-aws/bin:$PATH \
    PYTHONUNBUFFERED=1
USER 10001:10001
EXPOSE 4566
CMD ["python", "-m", "ministack"]
