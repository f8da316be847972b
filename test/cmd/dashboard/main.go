// Command dashboard writes the Grafana dashboard to the standard output.
package main

import (
	"fmt"
	"os"

	"github.com/clusterset-dns/clusterset-dns/test/observe"
)

func main() {
	text, err := observe.Dashboard()
	if err == nil {
		_, err = os.Stdout.Write(text)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
