# syntax=docker/dockerfile:1.7
#
#   docker build --target cpu  -t siglit:cpu .      (also the default target)
#   docker build --target cuda -t siglit:cuda .
#   docker run -p 8080:8080 -v siglit-cache:/cache siglit:cpu
#
# The dependencies are laid in a virtual environment by a stage of their own and copied over whole,
# so a change of the source builds in seconds and neither pip's cache nor a compiler is left behind.
# The root may be read-only: what is written goes to /cache (checkpoints, converted towers, verdicts)
# and to TMPDIR. There is no redis-server inside: without REDIS_URL vectors are cached in memory only.
# Nor is there a compiler, which a CPU does not need: for a GPU `--compile on` is refused at start.
# To bake a checkpoint in, build on this image: COPY it, set SIGLIT_COMPILE_CACHE to a folder outside
# the volume, and RUN python -m litapi prepare --model FOLDER.
# Pin the base by digest where builds must repeat: --build-arg PYTHON=python@sha256:…

ARG PYTHON=python:3.11.13-slim-bookworm

FROM ${PYTHON} AS bare-venv
ENV PATH=/venv/bin:$PATH \
    PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python -m venv /venv
WORKDIR /build
COPY requirements.txt .

# torch first and alone: whatever comes later finds it there and brings no second one.
FROM bare-venv AS venv-cpu
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
RUN --mount=type=cache,target=/root/.cache/pip \
    pip install --index-url "${TORCH_INDEX}" "$(grep -oE '^torch==[^ ]+' requirements.txt)" \
    && pip install -r requirements.txt

# PyPI's own wheel of torch is the CUDA one and brings CUDA's libraries; the driver is the host's.
FROM bare-venv AS venv-cuda
RUN --mount=type=cache,target=/root/.cache/pip \
    pip install "$(grep -oE '^torch==[^ ]+' requirements.txt)" \
    && pip install -r requirements.txt

FROM ${PYTHON} AS runtime
ENV PATH=/venv/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    HOME=/cache \
    HF_HOME=/cache/huggingface \
    SIGLIT_COMPILE_CACHE=/cache/compiled
# A number and no name: Kubernetes can see that it is not root, and no passwd file is needed.
RUN mkdir -p /cache/huggingface /cache/compiled && chown -R 10001:10001 /cache
WORKDIR /app
USER 10001:10001
VOLUME ["/cache"]
EXPOSE 8080
STOPSIGNAL SIGTERM
# The port is set by PORT or SIGLIT_PORT, not by flag; with TLS bring a check of your own.
HEALTHCHECK --interval=10s --timeout=5s --start-period=600s --retries=3 \
    CMD ["python", "-c", "import os, urllib.request as u; u.urlopen('http://127.0.0.1:' + (os.environ.get('SIGLIT_PORT') or os.environ.get('PORT') or '8080') + '/livez', timeout=4)"]
# No shell in between: the signal reaches the server, which drains and ends with 0.
ENTRYPOINT ["python", "-m", "litapi"]
CMD ["serve"]

FROM runtime AS cuda
ENV NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility
COPY --from=venv-cuda /venv /venv
COPY cache cache
COPY litapi litapi

FROM runtime AS cpu
COPY --from=venv-cpu /venv /venv
COPY cache cache
COPY litapi litapi
