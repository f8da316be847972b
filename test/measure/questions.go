//go:build linux

package measure

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"net"
	"slices"
	"time"

	"github.com/miekg/dns"
)

// Shares of the questions. The rest asks for the A records of services.
const (
	shareDenied = 0.05
	shareAAAA   = 0.10
	shareSRV    = 0.05
	// drawn is how many questions are prepared. They are asked in a circle.
	drawn = 50_000
)

// Question is a packet that is ready to be sent, but for its first two octets, and what must be in the answer.
type Question struct {
	Packet []byte
	Rcode  int
	// At least and at most as many records are answered. The SRV records of a headless service may be too many for a UDP
	// message of 512 octets.
	Least, Most int
}

// Service is what questions are asked about.
type Service struct {
	// Name is its domain name, with the last dot.
	Name string
	// Records is how many A records it has.
	Records int
	// Port is the name of its one TCP port.
	Port string
}

// Draw makes questions about random ones of so many services. The same seed makes the same ones, whatever they are called.
func Draw(services int, service func(i int) Service, seed uint64) ([]Question, error) {
	random := rand.New(rand.NewPCG(seed, 0)) //nolint:gosec // a reproducible draw, no secret
	all := make([]Question, drawn)
	for i := range all {
		s := service(random.IntN(services))
		name, qtype := s.Name, dns.TypeA
		q := Question{Rcode: dns.RcodeSuccess, Least: s.Records, Most: s.Records}
		switch p := random.Float64(); {
		case p < shareDenied:
			name, q.Rcode, q.Least, q.Most = "no-"+name, dns.RcodeNameError, 0, 0
		case p < shareDenied+shareAAAA:
			qtype, q.Least, q.Most = dns.TypeAAAA, 0, 0
		case p < shareDenied+shareAAAA+shareSRV:
			name, qtype, q.Least = "_"+s.Port+"._tcp."+name, dns.TypeSRV, 1
		}
		var err error
		if q.Packet, err = pack(name, qtype); err != nil {
			return nil, err
		}
		all[i] = q
	}
	return all, nil
}

// Ask makes the question for the A records of a name, of which there must be so many.
func Ask(name string, records int) (Question, error) {
	packet, err := pack(name, dns.TypeA)
	return Question{Packet: packet, Rcode: dns.RcodeSuccess, Least: records, Most: records}, err
}

// AskDenied makes the question for the A records of a name that must not exist.
func AskDenied(name string) (Question, error) {
	packet, err := pack(name, dns.TypeA)
	return Question{Packet: packet, Rcode: dns.RcodeNameError}, err
}

func pack(name string, qtype uint16) ([]byte, error) {
	m := (&dns.Msg{}).SetQuestion(name, qtype)
	m.RecursionDesired = false
	packet, err := m.Pack()
	if err != nil {
		return nil, fmt.Errorf("pack a question about %s: %w", name, err)
	}
	return packet, nil
}

// Denied returns those of the questions that are about names that do not exist.
func Denied(questions []Question) []Question {
	return slices.DeleteFunc(slices.Clone(questions), func(q Question) bool { return q.Rcode != dns.RcodeNameError })
}

// Exchange sends a question on a connected socket and checks the answer, for which it waits a second at most.
func Exchange(conn net.Conn, q *Question) error {
	var answer [4096]byte
	if err := conn.SetDeadline(time.Now().Add(time.Second)); err != nil {
		return err
	}
	if _, err := conn.Write(q.Packet); err != nil {
		return err
	}
	n, err := conn.Read(answer[:])
	for err == nil && (n < 12 || !bytes.Equal(answer[:2], q.Packet[:2])) {
		n, err = conn.Read(answer[:]) // that was to a question given up before
	}
	if err != nil {
		return err
	}
	return q.check(answer[:n])
}

// AllRight asks one question after the other until an answer is wrong.
func AllRight(conn net.Conn, questions []Question) error {
	for i := range questions {
		if err := Exchange(conn, &questions[i]); err != nil {
			return err
		}
	}
	return nil
}
