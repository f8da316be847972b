//go:build unix && !linux

package clusters

import "syscall"

// dieWithParent is empty here: only Linux can kill a program together with the one that started it. After a crashed
// test, look for kube-apiserver and etcd.
func dieWithParent() *syscall.SysProcAttr { return nil }

// stopped trusts the kernel to have stopped the process when kill returned.
func stopped(int) error { return nil }
