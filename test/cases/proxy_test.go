package cases

import (
	"bufio"
	"errors"
	"io"
	"net"
	"testing"
	"time"
)

func TestProxy(t *testing.T) {
	target, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer target.Close()
	go func() {
		for {
			conn, err := target.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				_, _ = io.Copy(conn, conn)
			}()
		}
	}()
	p, err := startProxy(target.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer p.stop()

	open := echoing(t, p)
	if open == nil {
		t.Fatal("nothing comes back through the proxy")
	}
	defer open.Close()
	p.setCut(true)
	if err := open.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := open.Read(make([]byte, 1)); err == nil || isTimeout(err) {
		t.Errorf("an open connection outlives the cut: %v", err)
	}
	if conn := echoing(t, p); conn != nil {
		conn.Close()
		t.Error("a new connection works although the line is cut")
	}
	p.setCut(false)
	conn := echoing(t, p)
	if conn == nil {
		t.Fatal("nothing comes back after the line is mended")
	}
	conn.Close()
}

func isTimeout(err error) bool {
	var timeout net.Error
	return errors.As(err, &timeout) && timeout.Timeout()
}

// echoing returns a connection on which a line came back, or nil.
func echoing(t *testing.T, p *proxy) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", p.addr())
	if err != nil {
		t.Fatal(err)
	}
	if err := conn.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	_, _ = io.WriteString(conn, "hello\n")
	if line, err := bufio.NewReader(conn).ReadString('\n'); err != nil || line != "hello\n" {
		conn.Close()
		return nil
	}
	return conn
}
