# syntax=docker/dockerfile:1.7
# One image for all processes: `--target api` and `--target worker` differ in what they start and share every
# large layer. Build with:  docker build --target api -t harrier-api .

FROM python:3.11-slim-bookworm AS system
ENV PYTHONUNBUFFERED=1 \
    PYTHONUTF8=1 \
    PATH=/opt/harrier/bin:$PATH
# What OpenCV loads from the system.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends libgl1 libglib2.0-0 libxcb1 \
    && rm -rf /var/lib/apt/lists/*
RUN useradd --system --uid 10001 --user-group --home-dir /var/lib/harrier --create-home harrier

FROM system AS dependencies
RUN python -m venv /opt/harrier
# The slow layer: made again only when the lock changes, and then from pip's cache.
RUN --mount=type=cache,target=/root/.cache/pip \
    --mount=type=bind,source=requirements.lock,target=/tmp/requirements.lock \
    python -m pip install --disable-pip-version-check --no-deps --require-hashes -r /tmp/requirements.lock

FROM dependencies AS harrier
COPY pyproject.toml README.md LICENSE /src/
COPY detection /src/detection
COPY app /src/app
COPY worker /src/worker
RUN python -m pip install --disable-pip-version-check --no-cache-dir --no-index --no-deps --no-build-isolation /src
ENV HARRIER_HOME=/var/lib/harrier
WORKDIR /var/lib/harrier
VOLUME /var/lib/harrier
USER 10001

FROM harrier AS api
ENV HARRIER_HOST=0.0.0.0
EXPOSE 8000
CMD ["harrier", "api"]

FROM harrier AS worker
CMD ["python", "-m", "worker", "--queue", "cpu"]
