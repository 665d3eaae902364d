# Two images: the syncer, and Kafka Connect with the Debezium connector that devstack/pom.xml pins.
#
#   docker build --target syncer .
#   docker build --target connect .

# --- Kafka Connect: Kafka's own image with the connector, which is compared with the committed checksum ---
FROM maven:3-eclipse-temurin-17 AS debezium
WORKDIR /download
COPY devstack/pom.xml devstack/checksums.txt ./
RUN version=$(sed -n 's:.*<debezium.version>\(.*\)</debezium.version>.*:\1:p' pom.xml) \
    && mvn -B -q org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy -DoutputDirectory=. \
        -Dartifact="io.debezium:debezium-connector-postgres:$version:tar.gz:plugin" \
    && grep " debezium-connector-postgres-$version-" checksums.txt | sha256sum -c - \
    && mkdir plugins \
    && tar -xzf debezium-connector-postgres-*.tar.gz -C plugins

FROM apache/kafka:4.1.2 AS connect
COPY --from=debezium /download/plugins /opt/plugins
EXPOSE 8083
ENTRYPOINT ["/opt/kafka/bin/connect-distributed.sh", "/etc/connect/connect.properties"]

# --- the syncer ---
FROM python:3.11-slim AS build
WORKDIR /build
COPY requirements-delta.txt requirements-dev.txt ./
# With the extra `delta`, so that every command works in the image, also `syncer export`.
RUN python -m venv /opt/syncer \
    && /opt/syncer/bin/pip install --no-cache-dir --require-hashes -r requirements-delta.txt
COPY pyproject.toml README.md LICENSE ./
COPY syncer syncer
# The build backend is one of the locked development dependencies.
RUN python -m venv /opt/build \
    && /opt/build/bin/pip install --no-cache-dir --require-hashes -r requirements-dev.txt \
    && /opt/build/bin/pip wheel --no-cache-dir --no-deps --no-build-isolation --wheel-dir /dist . \
    && /opt/syncer/bin/pip install --no-cache-dir --no-deps /dist/*.whl

FROM python:3.11-slim AS syncer
RUN useradd --system --uid 10001 --no-create-home syncer
COPY --from=build /opt/syncer /opt/syncer
ENV PATH=/opt/syncer/bin:$PATH PYTHONUNBUFFERED=1
WORKDIR /srv
USER syncer
EXPOSE 8080
HEALTHCHECK --interval=10s --timeout=5s --start-period=20s \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8080/livez', timeout=4)"]
ENTRYPOINT ["syncer"]
CMD ["run"]
