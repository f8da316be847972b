// Command channel is a gRPC client that keeps one channel, to the target in its argument. For each line that it reads it asks the
// health service, as soon as there is a connection, and prints who answered or what went wrong.
package main

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/resolver/dns"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
}

func run(args []string) error {
	if len(args) != 1 {
		return fmt.Errorf("%q: want a target", args)
	}
	// By default names are not resolved again before 30 seconds are over, whatever happens.
	dns.SetMinResolutionInterval(time.Second)
	conn, err := grpc.NewClient(args[0], grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithNoProxy())
	if err != nil {
		return err
	}
	defer conn.Close()
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		fmt.Println(check(conn))
	}
	return lines.Err()
}

func check(conn *grpc.ClientConn) string {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	var who peer.Peer
	_, err := grpc_health_v1.NewHealthClient(conn).Check(ctx, &grpc_health_v1.HealthCheckRequest{}, grpc.WaitForReady(true), grpc.Peer(&who))
	if err != nil {
		return "error " + err.Error()
	}
	return who.Addr.String()
}
