# Cyclery with everything that requirements.lock pins; at run time it needs no network but for
# datasets that are downloaded. docs/environments.md says how to use it.
#
#     docker build --tag cyclery .
#     docker run --rm --gpus all --volume "$PWD/results:/cyclery/results" cyclery

FROM python:3.12-slim-bookworm AS build

ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python -m venv /opt/venv
ENV PATH=/opt/venv/bin:$PATH
# By itself, so that an edit of the code does not install PyTorch again.
COPY requirements.lock /tmp/requirements.lock
RUN python -m pip install --requirement /tmp/requirements.lock

FROM python:3.12-slim-bookworm

RUN useradd --create-home --uid 1000 cyclery
COPY --from=build /opt/venv /opt/venv
# PYTHONPATH instead of an installation: the folder may be mounted over with a checkout.
ENV PATH=/opt/venv/bin:$PATH PYTHONPATH=/cyclery/src PYTHONUNBUFFERED=1
WORKDIR /cyclery
COPY --chown=cyclery:cyclery . .
RUN mkdir -p results && chown cyclery:cyclery /cyclery results
USER 1000
ENTRYPOINT ["python", "-m", "snakemake"]
CMD ["--cores", "all", "report"]
