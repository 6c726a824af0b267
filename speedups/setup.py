from setuptools import Extension, setup

setup(ext_modules=[Extension("stream_consumer_speedups", ["stream_consumer_speedups.c"])])
