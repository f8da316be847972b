// Package clients resolves through the server with the resolvers that real programs have: those of glibc, musl, Go, c-ares and Java,
// unbound as a forwarder, dig and kdig. It has nothing but tests. What each does with order, lifetime and truncation is measured, and
// is the table of docs/clients.md.
package clients
