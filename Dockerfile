# Packs bin/image/ARCH, which `make image` fills: the static binary, with the file
# capability for port 53 where that could be set, and CA certificates. The default
# base is empty, so that this needs no registry; give another one with --build-arg
# BASE=... to have programs that an exec entry of a kubeconfig calls, or a shell.
ARG BASE=scratch
FROM ${BASE}
ARG VERSION=devel
ARG ARCH=amd64
LABEL org.opencontainers.image.title="clusterset-dns" \
      org.opencontainers.image.description="CoreDNS that answers clusterset.local from the API servers of several clusters" \
      org.opencontainers.image.source="https://github.com/clusterset-dns/clusterset-dns" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}"
# COPY keeps the file capability.
COPY bin/image/${ARCH}/ /
# By number: Kubernetes cannot tell that a user given by name is not root.
USER 65532:65532
WORKDIR /
EXPOSE 53 53/udp
ENTRYPOINT ["/coredns"]
