# HomeFed's image: hub operator, home agent, ledger and command line in one.
#
#   docker build -t homefed:dev .
#
# The testbed makes the same image without a container engine: tests/testbed/images.py reads ENV, USER, WORKDIR, ENTRYPOINT,
# the versions and the copied folders from this file, so that there is one recipe only.
ARG PYTHON_VERSION=3.11
ARG DEBIAN_SUITE=bookworm

FROM python:${PYTHON_VERSION}-slim-${DEBIAN_SUITE} AS build
COPY requirements/runtime.txt /requirements.txt
# Wheels only: nothing is compiled here, and the hashes of the lock file are checked.
RUN python3 -m pip install --no-cache-dir --no-compile --require-hashes --only-binary=:all: --target /app -r /requirements.txt
COPY operator/homefed /app/homefed
# Byte code is made once: the containers' root file system is read-only, and without it every start would compile anew.
RUN python3 -m compileall -q --invalidation-mode unchecked-hash /app

FROM python:${PYTHON_VERSION}-slim-${DEBIAN_SUITE}
LABEL org.opencontainers.image.title="homefed" org.opencontainers.image.licenses="Apache-2.0"
ENV PYTHONPATH=/app PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
COPY --from=build /app /app
WORKDIR /tmp
USER 65532:65532
ENTRYPOINT ["python3", "-m", "homefed"]
