//go:build linux

package measure

import (
	"encoding/binary"
	"errors"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// batch sends or receives up to window messages on a connected socket with one system call, so that asking costs less
// than answering and servers have something to do all the time.
type batch struct {
	headers  [window]mmsghdr
	vectors  [window]unix.Iovec
	buffers  [window][bufferSize]byte // only where received into
	controls [window]control          // the same
}

// control is what the kernel tells of a message, on a socket with SO_TIMESTAMPNS: a header (cmsg(3)) and a timespec.
type control [unix.SizeofCmsghdr + 16]byte

// bufferSize is enough for any answer to a question without EDNS, which has 512 octets at most.
const bufferSize = 2048

// mmsghdr is what sendmmsg(2) and recvmmsg(2) take.
type mmsghdr struct {
	header unix.Msghdr
	length uint32
	_      [4]byte
}

func newBatch() *batch {
	b := &batch{}
	for i := range b.headers {
		b.headers[i].header.Iov = &b.vectors[i]
		b.headers[i].header.SetIovlen(1)
		b.vectors[i].Base = &b.buffers[i][0]
		b.vectors[i].SetLen(bufferSize)
	}
	return b
}

// set makes a packet the i-th message to send.
func (b *batch) set(i int, packet []byte) {
	b.vectors[i].Base = &packet[0]
	b.vectors[i].SetLen(len(packet))
}

// message returns the i-th message that was received. It is good until the next call of receive.
func (b *batch) message(i int) []byte { return b.buffers[i][:b.headers[i].length] }

// came returns when the i-th message that was received came, or the time where the kernel has not told.
func (b *batch) came(i int) time.Time {
	if b.headers[i].header.Controllen < uint64(len(control{})) {
		return time.Now()
	}
	told := b.controls[i][unix.SizeofCmsghdr:]
	seconds, nanoseconds := binary.NativeEndian.Uint64(told), binary.NativeEndian.Uint64(told[8:])
	return time.Unix(int64(seconds), int64(nanoseconds)) //nolint:gosec // they come from signed ones
}

// send sends the first n messages.
func (b *batch) send(fd, n int) error {
	for sent := 0; sent < n; {
		done, err := b.call(unix.SYS_SENDMMSG, fd, sent, n)
		if err != nil && !errors.Is(err, unix.EAGAIN) {
			return err
		}
		sent += done
	}
	return nil
}

// receive takes the messages that are there, and returns how many.
func (b *batch) receive(fd int) (int, error) {
	for i := range b.headers {
		b.headers[i].header.Control = &b.controls[i][0]
		b.headers[i].header.SetControllen(len(b.controls[i])) // the kernel has shortened it
	}
	n, err := b.call(unix.SYS_RECVMMSG, fd, 0, window)
	if errors.Is(err, unix.EAGAIN) {
		return 0, nil
	}
	return n, err
}

// call hands the messages from one to another (exclusive) to the kernel.
func (b *batch) call(number uintptr, fd, from, to int) (int, error) {
	for {
		n, _, errno := unix.Syscall6(number, uintptr(fd), uintptr(unsafe.Pointer(&b.headers[from])), uintptr(to-from), 0, 0, 0)
		switch errno {
		case 0:
			return int(n), nil
		case unix.EINTR:
			continue
		}
		return 0, errno
	}
}
