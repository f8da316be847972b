// Package image holds a test of the container image: it is built as an operator does it, and run on a network of its own with
// the security context, the memory limit and the probes that kubeadm's CoreDNS has.
package image
