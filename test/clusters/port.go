package clusters

import (
	"fmt"
	"strconv"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// port is a TCP port of 127.0.0.1 that stays ours from reservePort to release, whether or not a program listens on it.
//
// It is a socket that is bound and never listens. A program that shares ports (SO_REUSEPORT) can listen beside it, no
// other program and no outgoing connection can take the number, and while nothing listens clients are refused: a
// restarted API server always finds its port free.
type port struct {
	number  int
	release func()
}

func reservePort() (port, error) {
	syscall.ForkLock.RLock()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
	if err == nil {
		unix.CloseOnExec(fd)
	}
	syscall.ForkLock.RUnlock()
	if err != nil {
		return port{}, fmt.Errorf("reserve a port: %w", err)
	}
	number, err := bindLoopback(fd)
	if err != nil {
		unix.Close(fd)
		return port{}, fmt.Errorf("reserve a port: %w", err)
	}
	return port{number: number, release: sync.OnceFunc(func() { unix.Close(fd) })}, nil
}

// bindLoopback binds the socket to a port that the kernel chooses, for sharing.
func bindLoopback(fd int) (int, error) {
	for _, option := range []int{unix.SO_REUSEADDR, unix.SO_REUSEPORT} {
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, option, 1); err != nil {
			return 0, err
		}
	}
	if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		return 0, err
	}
	name, err := unix.Getsockname(fd)
	if err != nil {
		return 0, err
	}
	return name.(*unix.SockaddrInet4).Port, nil
}

// url returns the address of the port with the scheme, such as https://127.0.0.1:40001.
func (p port) url(scheme string) string { return scheme + "://127.0.0.1:" + strconv.Itoa(p.number) }
