//go:build unix && !linux

package server

import "syscall"

// dieWithParent is empty here: only Linux can kill a program together with the one that started it.
func dieWithParent() *syscall.SysProcAttr { return nil }
