package watch

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"

	"google.golang.org/protobuf/encoding/protowire"
)

// What an API server sends in protobuf begins with the octets "k8s\0". Then comes a runtime.Unknown, of which field 2 is the object:
// an envelope around it.

var protobufMagic = []byte("k8s\x00")

const (
	unknownRaw  = 2
	wireOctets  = 2 // the type of a field that has a length
	wireTypeLen = 3 // how many bits the type of a field has
)

// wire reads the encoding of protobuf.
type wire struct {
	in     *bufio.Reader
	at     uint64 // how much has been read
	buffer []byte
}

// varint reads a number.
func (w *wire) varint() (uint64, error) {
	head, err := w.in.Peek(binary.MaxVarintLen64)
	n, size := binary.Uvarint(head)
	switch {
	case size > 0:
		return n, w.skip(size)
	case size < 0:
		return 0, errors.New("a number of more than 64 bits")
	case len(head) > 0 && errors.Is(err, io.EOF):
		err = io.ErrUnexpectedEOF
	}
	return 0, err
}

// skip passes over what was peeked at.
func (w *wire) skip(octets int) error {
	n, err := w.in.Discard(octets)
	w.at += uint64(n) //nolint:gosec // not negative
	return err
}

// field reads the head of a field. The error is io.EOF when there is no further one.
func (w *wire) field() (number, size uint64, err error) {
	tag, err := w.varint()
	if err != nil {
		return 0, 0, err
	}
	if tag&(1<<wireTypeLen-1) != wireOctets {
		return 0, 0, fmt.Errorf("a field %d of type %d in it", tag>>wireTypeLen, tag&(1<<wireTypeLen-1))
	}
	if size, err = w.varint(); errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	if err == nil && size > math.MaxInt64 { // it would end before it begins
		err = fmt.Errorf("a field of %d octets", size)
	}
	return tag >> wireTypeLen, size, err
}

// octets are good until the next call.
func (w *wire) octets(size uint64) ([]byte, error) {
	switch {
	case size > maxObject:
		return nil, fmt.Errorf("%w: an object of more than %d MiB", errTooLarge, maxObject>>20)
	case size <= uint64(w.in.Size()): //nolint:gosec // not negative
		octets, err := w.in.Peek(int(size)) //nolint:gosec // at most maxObject
		if err != nil {
			return nil, err
		}
		return octets, w.skip(len(octets))
	case uint64(cap(w.buffer)) < size:
		w.buffer = make([]byte, size)
	}
	n, err := io.ReadFull(w.in, w.buffer[:size])
	w.at += uint64(n) //nolint:gosec // not negative
	return w.buffer[:n], err
}

// unmarshal decodes an object, but for what nobody asks of it. room is for what is wanted, and is returned for the next.
func unmarshal(into any, object, room []byte) (wanted []byte, err error) {
	message, ok := into.(interface{ Unmarshal(octets []byte) error })
	if !ok {
		return room, errors.New("it is in protobuf, where JSON was asked for")
	}
	wanted = lean(room[:0], object)
	return wanted, message.Unmarshal(wanted)
}

// lean appends an object, but for what nobody asks of its ObjectMeta (field 1): it is much of most objects. What makes no sense is
// left to who decodes it.
func lean(to, object []byte) []byte {
	const objectMeta = 1
	for len(object) > 0 {
		number, kind, size := protowire.ConsumeField(object)
		if size < 0 {
			return append(to, object...)
		}
		if number != objectMeta || kind != protowire.BytesType {
			to, object = append(to, object[:size]...), object[size:]
			continue
		}
		_, _, tag := protowire.ConsumeTag(object)
		meta, _ := protowire.ConsumeBytes(object[tag:])
		object = object[size:]
		kept := 0 // of meta, moved to its beginning
		for rest := meta; len(rest) > 0; {
			number, _, size := protowire.ConsumeField(rest)
			if size < 0 {
				size = len(rest)
			}
			if !unasked(number) {
				kept += copy(meta[kept:], rest[:size])
			}
			rest = rest[size:]
		}
		to = protowire.AppendTag(to, objectMeta, protowire.BytesType)
		to = protowire.AppendBytes(to, meta[:kept])
	}
	return to
}

// unasked reports whether nobody asks for a field of an ObjectMeta: generateName, selfLink, uid, ownerReferences, finalizers and
// managedFields.
func unasked(number protowire.Number) bool {
	switch number {
	case 2, 4, 5, 13, 14, 17:
		return true
	}
	return false
}

// octetsOf returns the last field of a message that has a number and a length, or that of a message in it, along a path of
// numbers; nil where there is none.
func octetsOf(message []byte, path ...protowire.Number) ([]byte, error) {
	for _, number := range path {
		var found []byte
		for len(message) > 0 {
			n, kind, size := protowire.ConsumeField(message)
			if size < 0 {
				return nil, protowire.ParseError(size)
			}
			if n == number && kind == protowire.BytesType {
				_, _, tag := protowire.ConsumeTag(message)
				found, _ = protowire.ConsumeBytes(message[tag:])
			}
			message = message[size:]
		}
		message = found
	}
	return message, nil
}
