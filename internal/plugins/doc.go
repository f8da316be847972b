// Package plugins links every plugin of plugin.cfg, and knows their order. The server and clustersetctl are made of the same.
package plugins

//go:generate go run ../../cmd/coredns/internal/plugincfg/generate ../../plugin.cfg zplugin.go
