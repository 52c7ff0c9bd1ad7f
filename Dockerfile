# One EdgeKV node. The listeners are on loopback (docs/SECURITY.md), so share the network of what talks to it:
#   docker build -t edgekv . && docker run --rm --network host -v edgekv:/data edgekv
# or run it as a sidecar in the pod of its application.
FROM python:3.11-slim AS build
RUN apt-get update -qq && apt-get install -y -qq --no-install-recommends gcc libc6-dev && rm -rf /var/lib/apt/lists/*
WORKDIR /build
COPY requirements.lock pyproject.toml README.md LICENSE ./
RUN python -m venv /opt/edgekv && /opt/edgekv/bin/pip install --no-cache-dir --requirement requirements.lock
COPY edgekv edgekv
RUN /opt/edgekv/bin/pip install --no-cache-dir --no-deps --no-build-isolation .

FROM python:3.11-slim
COPY --from=build /opt/edgekv /opt/edgekv
ENV PATH=/opt/edgekv/bin:$PATH EDGEKV_DATA_DIR=/data PYTHONUNBUFFERED=1
RUN useradd --uid 65532 --home-dir /data --no-create-home edgekv && mkdir /data && chown edgekv /data
USER edgekv
VOLUME /data
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s CMD ["python", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:7480/livez', timeout=2)"]
ENTRYPOINT ["edgekv"]
CMD ["serve"]
