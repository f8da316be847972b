package clusterset

import clog "github.com/coredns/coredns/plugin/pkg/log"

func init() { clog.Discard() } //nolint:gochecknoinits // as in every CoreDNS plugin: tests say nothing
