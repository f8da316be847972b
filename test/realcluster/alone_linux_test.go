package realcluster

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// alone is for a process with a network, mounts and processes of its own, that dies with the thread that starts it.
func alone() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWNS | syscall.CLONE_NEWPID | syscall.CLONE_NEWIPC | syscall.CLONE_NEWUTS,
		Pdeathsig:  syscall.SIGKILL,
	}
}

// mount is what is mounted where.
type mount struct{ source, target, kind string }

// beAlone furnishes the place of a process that is alone.
func beAlone() error {
	if err := furnish(mount{"tmpfs", "/run", "tmpfs"}); err != nil {
		return err
	}
	return ip("link set lo up")
}

// furnish mounts what is as it is seen here, and what else is wanted, so that nobody else sees it.
func furnish(mounts ...mount) error {
	if err := syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("keep mounts to oneself: %w", err)
	}
	for _, m := range append([]mount{{"proc", "/proc", "proc"}}, mounts...) {
		var flags uintptr
		if m.kind == "" {
			flags = syscall.MS_BIND
		}
		if err := syscall.Mount(m.source, m.target, m.kind, flags, ""); err != nil {
			return fmt.Errorf("mount %s at %s: %w", m.source, m.target, err)
		}
	}
	return nil
}

// ip runs the program ip.
func ip(args string) error { return command("ip", strings.Fields(args)...) }

// command runs a program; the error has what it says.
func command(name string, args ...string) error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if out, err := exec.CommandContext(ctx, name, args...).CombinedOutput(); err != nil {
		return fmt.Errorf("%s %q: %w\n%s", name, args, err, out)
	}
	return nil
}

const (
	// cgroups is where control groups are.
	cgroups = "/sys/fs/cgroup"
	// groupPrefix begins the names of the control groups of nodes.
	groupPrefix = "clusterset-dns-test-"
)

// hierarchies returns the folders that a control group is made in: one, or with control groups of version 1 one per controller.
func hierarchies() ([]string, error) {
	if unified() {
		return []string{cgroups}, nil
	}
	entries, err := os.ReadDir(cgroups)
	if err != nil {
		return nil, err
	}
	var found []string
	for _, entry := range entries {
		if entry.IsDir() { // others are links to those
			found = append(found, filepath.Join(cgroups, entry.Name()))
		}
	}
	return found, nil
}

// unified tells whether control groups are of version 2.
func unified() bool {
	_, err := os.Stat(filepath.Join(cgroups, "cgroup.controllers"))
	return err == nil
}

// makeGroup makes a control group as a kubelet wants to find it.
func makeGroup(name string) error {
	folders, err := hierarchies()
	if err != nil {
		return err
	}
	if len(folders) == 0 {
		return fmt.Errorf("there are no control groups in %s", cgroups)
	}
	for _, folder := range folders {
		group := filepath.Join(folder, name)
		if unified() {
			// Already so below systemd; where it cannot be, the kubelet would miss it.
			_ = os.WriteFile(filepath.Join(folder, "cgroup.subtree_control"), []byte("+cpu +cpuset +memory +pids"), 0)
		}
		if err := os.MkdirAll(group, 0o755); err != nil {
			return err
		}
		if err := inherit(folder, group); err != nil {
			return err
		}
	}
	return nil
}

// inherit checks that a control group can be used. Those of version 1 begin without processors, which nothing can run on.
func inherit(from, group string) error {
	if unified() {
		text, err := os.ReadFile(filepath.Join(group, "cgroup.controllers"))
		if err == nil && !slices.Contains(strings.Fields(string(text)), "memory") {
			err = fmt.Errorf("%s may not limit memory: %s does not hand that controller down", group, from)
		}
		return err
	}
	for _, file := range []string{"cpuset.cpus", "cpuset.mems"} {
		text, err := os.ReadFile(filepath.Join(from, file))
		if errors.Is(err, os.ErrNotExist) {
			continue // another controller
		}
		if err == nil {
			err = os.WriteFile(filepath.Join(group, file), text, 0)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// removeGroups removes the control groups of nodes whose processes have been killed.
func removeGroups() error {
	folders, err := hierarchies()
	if err != nil {
		return err
	}
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		var errs []error
		for _, folder := range folders {
			groups, err := filepath.Glob(filepath.Join(folder, groupPrefix+"*"))
			errs = append(errs, err)
			for _, group := range groups {
				errs = append(errs, removeGroup(group))
			}
		}
		if err := errors.Join(errs...); err == nil || time.Now().After(deadline) {
			return err
		}
	}
}

// removeGroup removes a control group and those in it.
func removeGroup(group string) error {
	entries, err := os.ReadDir(group)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	errs := []error{err}
	for _, entry := range entries {
		if entry.IsDir() {
			errs = append(errs, removeGroup(filepath.Join(group, entry.Name())))
		}
	}
	if err := syscall.Rmdir(group); err != nil && !errors.Is(err, syscall.ENOENT) {
		errs = append(errs, fmt.Errorf("remove the control group %s: %w", group, err))
	}
	return errors.Join(errs...)
}
