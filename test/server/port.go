package server

import (
	"fmt"
	"net"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// port is a TCP port of 127.0.0.1 that stays ours until release, by a socket that is bound and never listens. CoreDNS
// shares its ports (SO_REUSEPORT) and listens beside it; nobody else gets the number, also while a reload has nothing
// listening there.
type port struct {
	number  int
	release func()
}

// reservePort reserves a TCP port. With udp, the UDP port of the same number is free at this moment too: a datagram
// socket cannot hold it, for it would be handed a share of the queries.
func reservePort(udp bool) (port, error) {
	const attempts = 50
	for range attempts {
		p, err := reserveTCP()
		if err != nil {
			return port{}, fmt.Errorf("reserve a port: %w", err)
		}
		if !udp || freeUDP(p.number) {
			return p, nil
		}
		p.release()
	}
	return port{}, fmt.Errorf("reserve a port: none of %d is free for both TCP and UDP", attempts)
}

func reserveTCP() (port, error) {
	syscall.ForkLock.RLock()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
	if err == nil {
		unix.CloseOnExec(fd)
	}
	syscall.ForkLock.RUnlock()
	if err != nil {
		return port{}, err
	}
	number, err := bindShared(fd)
	if err != nil {
		unix.Close(fd)
		return port{}, err
	}
	return port{number: number, release: sync.OnceFunc(func() { unix.Close(fd) })}, nil
}

// bindShared binds the socket to a loopback port that the kernel chooses, for sharing.
func bindShared(fd int) (int, error) {
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1); err != nil {
		return 0, err
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

// ReservePort reserves a TCP port of 127.0.0.1 until release is called. Whoever listens there with SO_REUSEPORT can go and
// come back; meanwhile connections are refused, and nobody else gets the number, not even for an outgoing connection.
func ReservePort() (number int, release func(), err error) {
	p, err := reservePort(false)
	return p.number, p.release, err
}

func freeUDP(number int) bool {
	conn, err := net.ListenPacket("udp", loopback(number))
	if err != nil {
		return false
	}
	conn.Close()
	return true
}
