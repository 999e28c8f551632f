# Dray's image, and `--target runner`: the native program alone. BASE: any Debian with Python 3.11 or newer, venv and apt.
#   docker build -t dray .
ARG BASE=python:3.13-slim

FROM ${BASE} AS build
RUN cc --version && make --version || { apt-get update && apt-get install -y --no-install-recommends gcc libc6-dev make; }
# pip stays behind in /tools. kubernetes.aio, a quarter of it all, is used by nobody.
RUN python3 -m venv /tools && python3 -m venv --without-pip /opt/dray
WORKDIR /src
COPY requirements.lock requirements-build.lock ./
RUN /tools/bin/pip install --no-cache-dir --require-hashes -r requirements-build.lock \
 && /tools/bin/pip --python /opt/dray/bin/python install --no-cache-dir --require-hashes -r requirements.lock \
 && rm -r /opt/dray/lib/python*/site-packages/kubernetes/aio
COPY pyproject.toml hatch_build.py README.md LICENSE ./
COPY operator operator
COPY api api
RUN /tools/bin/pip wheel --no-deps --no-build-isolation --no-cache-dir --wheel-dir /wheels . \
 && /tools/bin/pip --python /opt/dray/bin/python install --no-deps --no-cache-dir /wheels/*.whl \
 && cp operator/dray/runner/bin/dray-runner /dray-runner

FROM scratch AS runner
COPY --from=build /dray-runner /dray-runner
USER 65532:65532
ENTRYPOINT ["/dray-runner"]

FROM ${BASE} AS dray
RUN echo 'dray:x:65532:65532::/data:/usr/sbin/nologin' >>/etc/passwd && echo 'dray:x:65532:' >>/etc/group && install -d -o 65532 -g 65532 /data /outputs
COPY --from=build /opt/dray /opt/dray
COPY --from=build /dray-runner /dray-runner
COPY deploy/image/ /usr/local/bin/
# DRAY_HOSTS: a container linked as the original's README shows calls this one `dray`.
ENV PATH=/opt/dray/bin:$PATH DRAY_DATA_DIR=/data DRAY_HOSTS=dray HOME=/data PYTHONUNBUFFERED=1
WORKDIR /data
EXPOSE 3000
ENTRYPOINT ["dray-entrypoint"]
HEALTHCHECK --interval=15s --timeout=10s --start-period=30s CMD ["dray-health"]
ARG VERSION=0
ARG REVISION=unknown
LABEL org.opencontainers.image.title=dray \
      org.opencontainers.image.description="Run jobs made of container steps: the output of each is the input of the next" \
      org.opencontainers.image.licenses=Apache-2.0 \
      org.opencontainers.image.version=$VERSION \
      org.opencontainers.image.revision=$REVISION
