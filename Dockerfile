# Both bases bring the same Python, 3.11 or newer, at the same path; releases pin them by digest.
ARG BASE_BUILD=python:3.13-slim
ARG BASE_RUN=python:3.13-slim

FROM ${BASE_BUILD} AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_NO_CACHE_DIR=1
WORKDIR /src
RUN python3 -m venv /opt/build && python3 -m venv --without-pip /opt/operator
COPY requirements/ requirements/
# Only wheels, and only those of the lock: no code of a dependency runs while the image is built.
RUN /opt/build/bin/pip --python /opt/operator/bin/python install \
        --only-binary :all: --require-hashes --requirement requirements/runtime.txt
# What makes our own wheel comes from the lock, too: hatchling and what it needs.
RUN sed -n '/^\(hatchling\|packaging\|pathspec\|pluggy\|tomlkit\|trove-classifiers\)==/,/^    # via/p' \
        requirements/dev.txt > build.txt \
    && /opt/build/bin/pip install --only-binary :all: --require-hashes --requirement build.txt
COPY pyproject.toml README.md LICENSE ./
COPY operator/ operator/
RUN /opt/build/bin/pip wheel --no-build-isolation --no-deps --no-index --wheel-dir wheel . \
    && /opt/build/bin/pip --python /opt/operator/bin/python install --no-deps --no-index wheel/*.whl

FROM ${BASE_RUN}
LABEL org.opencontainers.image.title="database-bootstrap-operator" \
      org.opencontainers.image.description="Bootstraps PostgreSQL databases from Kubernetes resources" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /opt/operator /opt/operator
# The root file system is read-only: bytecode was compiled above. No home, so that no file there can configure libpq.
ENV PATH=/opt/operator/bin:$PATH \
    HOME=/nonexistent \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
WORKDIR /
USER 65532:65532
EXPOSE 8080
ENTRYPOINT ["database-bootstrap"]
CMD ["run"]
