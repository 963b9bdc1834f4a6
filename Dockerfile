# Linux x86-64. `light`: what measures, reports and gates packages, without torch. `full`: the checkout with everything,
# whose two commands are the README's: about 7.5 GB, more than half of them CUDA's libraries, which torch brings.
#
#   docker build --target light --tag coreml-prune-bench:light .
#   docker run --rm --volume "$PWD:/data" coreml-prune-bench:light accuracy m.mlpackage --data imagefolder:images
#   docker build --target full --tag coreml-prune-bench:full .
#   docker run --rm coreml-prune-bench:full make bench

FROM python:3.12-slim AS light
COPY . /opt/coreml-prune-bench
RUN pip install --no-cache-dir '/opt/coreml-prune-bench[charts]'
WORKDIR /data
ENTRYPOINT ["coreml-prune-bench"]
CMD ["--help"]

FROM python:3.12-slim AS full
RUN apt-get update && apt-get install --yes --no-install-recommends git make && rm -rf /var/lib/apt/lists/*
COPY . /opt/coreml-prune-bench
WORKDIR /opt/coreml-prune-bench
RUN make setup
CMD ["make", "bench"]
