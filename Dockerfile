# Packs bin/coredns, which `make` builds, as an image that takes the place of the
# CoreDNS image. The default base is empty, so that this needs no registry; give
# another one with --build-arg BASE=... to have CA certificates or a shell.
ARG BASE=scratch
FROM ${BASE}
ARG VERSION=devel
LABEL org.opencontainers.image.title="clusterset-dns" \
      org.opencontainers.image.description="CoreDNS that answers clusterset.local from the API servers of several clusters" \
      org.opencontainers.image.source="https://github.com/clusterset-dns/clusterset-dns" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}"
# A file capability set on bin/coredns is kept by COPY.
COPY bin/coredns /coredns
# By number: Kubernetes cannot tell that a user given by name is not root.
USER 65532:65532
WORKDIR /
EXPOSE 53 53/udp
ENTRYPOINT ["/coredns"]
