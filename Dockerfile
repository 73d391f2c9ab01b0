# The two images of the cloud: `--target functions` and `--target gateway`.

FROM python:3.11-slim-bookworm AS environment
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
WORKDIR /opt/axiom
RUN python -m venv /opt/venv
COPY requirements.txt requirements-cloud.txt requirements-gemini.txt ./
# The locks name every distribution; a wheel runs no code of its own when it is installed.
RUN /opt/venv/bin/pip install --no-deps --only-binary=:all: --no-compile \
      -r requirements.txt -r requirements-cloud.txt -r requirements-gemini.txt \
    && /opt/venv/bin/pip uninstall --yes pip setuptools

FROM environment AS functions-tree
COPY shared/ shared/
COPY functions/ functions/
COPY infra/__init__.py infra/
COPY infra/images/__init__.py infra/images/serve.py infra/images/pushes.py infra/images/
# The largest part of a cold start is compiling: done here, once, and not looked at again.
RUN python -m compileall -q -j 0 --invalidation-mode unchecked-hash /opt/venv/lib /opt/axiom

FROM environment AS gateway-tree
COPY shared/ shared/
COPY scp_gateway/ scp_gateway/
RUN python -m compileall -q -j 0 --invalidation-mode unchecked-hash /opt/venv/lib /opt/axiom

FROM python:3.11-slim-bookworm AS base
# Nobody in the image can become root, and nothing in it can be changed by who runs it.
RUN useradd --uid 65532 --no-create-home --shell /usr/sbin/nologin axiom
ENV PATH=/opt/venv/bin:$PATH PYTHONPATH=/opt/axiom PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 \
    PYTHONSAFEPATH=1 AXIOM_PLATFORM=cloud
WORKDIR /opt/axiom

FROM base AS functions
COPY --from=functions-tree /opt/venv /opt/venv
COPY --from=functions-tree /opt/axiom /opt/axiom
USER 65532:65532
ENV PORT=8080
EXPOSE 8080
# Cloud Run asks by itself; this is for whoever runs the image elsewhere.
HEALTHCHECK --interval=30s --timeout=5s --start-period=20s \
  CMD ["python", "-c", "import os, socket; socket.create_connection(('127.0.0.1', int(os.environ['PORT'])), 3)"]
ENTRYPOINT ["python", "-m", "infra.images.serve"]

FROM base AS gateway
COPY --from=gateway-tree /opt/venv /opt/venv
COPY --from=gateway-tree /opt/axiom /opt/axiom
USER 65532:65532
ENV AXIOM_DIMSE_HOST=0.0.0.0 AXIOM_DIMSE_PORT=11112 AXIOM_HEALTH_PORT=8080
EXPOSE 11112 8080
HEALTHCHECK --interval=30s --timeout=5s --start-period=20s \
  CMD ["python", "-c", "import os, urllib.request; urllib.request.urlopen('http://127.0.0.1:' + os.environ['AXIOM_HEALTH_PORT'] + '/health', timeout=3)"]
ENTRYPOINT ["python", "-m", "scp_gateway.main"]
