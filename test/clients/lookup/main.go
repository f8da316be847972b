// Command lookup looks names up as Go programs without cgo do. It and the programs in testdata are called alike:
//
//	PROGRAM a|aaaa|any|srv NAME [MILLISECONDS...]
//
// looks the name up, and again after each pause. It prints the addresses, or HOST:PORT of the SRV records, in the order in which
// the resolver gives them, one per line; a line "again" before each further lookup, and a line that begins with "error" for one
// that failed.
package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"strconv"
	"time"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
}

func run(args []string) error {
	if len(args) < 2 {
		return fmt.Errorf("%q: want a|aaaa|any|srv NAME [MILLISECONDS...]", args)
	}
	look(args[0], args[1])
	for _, pause := range args[2:] {
		ms, err := strconv.Atoi(pause)
		if err != nil {
			return fmt.Errorf("pause %q: want milliseconds", pause)
		}
		time.Sleep(time.Duration(ms) * time.Millisecond)
		fmt.Println("again")
		look(args[0], args[1])
	}
	return nil
}

// networks are the arguments of LookupNetIP.
var networks = map[string]string{"a": "ip4", "aaaa": "ip6", "any": "ip"}

func look(what, name string) {
	if what == "srv" {
		_, records, err := net.DefaultResolver.LookupSRV(context.Background(), "", "", name)
		for _, s := range records {
			fmt.Printf("%s:%d\n", s.Target, s.Port)
		}
		complain(err)
		return
	}
	addresses, err := net.DefaultResolver.LookupNetIP(context.Background(), networks[what], name)
	for _, a := range addresses {
		fmt.Println(a.Unmap())
	}
	complain(err)
}

func complain(err error) {
	if err != nil {
		fmt.Println("error", err)
	}
}
