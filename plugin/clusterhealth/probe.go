package clusterhealth

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"net/http"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health/grpc_health_v1"
)

// userAgent is how probes introduce themselves.
const userAgent = "clusterset-dns"

// maxHeader is how many octets of headers an HTTP answer may have. Bodies are not read at all.
const maxHeader = 64 << 10

// prober asks a target once how it is. nil means well. It returns soon after the context has ended.
type prober func(context.Context) error

// newProber makes the prober of a property. Every probe makes a connection of its own, so that it goes the whole way a
// client goes, and none goes through a proxy.
func newProber(p probe, roots *x509.CertPool) prober {
	switch p.kind {
	case kindTCP:
		return tcpProber(p.target)
	case kindGRPC:
		return grpcProber(p.target, p.service)
	default:
		return httpProber(p.target, roots)
	}
}

// tcpProber is satisfied with a connection.
func tcpProber(target string) prober {
	return func(ctx context.Context) error {
		var d net.Dialer
		conn, err := d.DialContext(ctx, "tcp", target)
		if err != nil {
			return err
		}
		return conn.Close()
	}
}

// httpProber is satisfied with a status of 200 to 399. It follows no redirect: where one leads is another target.
func httpProber(target string, roots *x509.CertPool) prober {
	client := &http.Client{
		Transport:     transport(roots),
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return func(ctx context.Context) error {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, target, nil)
		if err != nil {
			return err
		}
		req.Header.Set("User-Agent", userAgent)
		resp, err := client.Do(req)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		if resp.StatusCode < 200 || resp.StatusCode > 399 {
			return fmt.Errorf("status %d, 200 to 399 is good", resp.StatusCode)
		}
		return nil
	}
}

// transport has no Proxy function, so that the environment is not asked for one.
func transport(roots *x509.CertPool) *http.Transport {
	return &http.Transport{
		TLSClientConfig:        &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12},
		ForceAttemptHTTP2:      true,
		DisableKeepAlives:      true,
		MaxResponseHeaderBytes: maxHeader,
	}
}

// grpcProber is satisfied with SERVING from the standard health service, asked in plaintext. The empty service stands for
// the server as a whole.
func grpcProber(target, service string) prober {
	return func(ctx context.Context) error {
		conn, err := grpc.NewClient("passthrough:///"+target,
			grpc.WithTransportCredentials(insecure.NewCredentials()),
			grpc.WithNoProxy(),
			grpc.WithDisableServiceConfig(),
			grpc.WithUserAgent(userAgent),
		)
		if err != nil {
			return err
		}
		defer conn.Close()
		resp, err := grpc_health_v1.NewHealthClient(conn).Check(ctx, &grpc_health_v1.HealthCheckRequest{Service: service})
		if err != nil {
			return err
		}
		if resp.GetStatus() != grpc_health_v1.HealthCheckResponse_SERVING {
			return fmt.Errorf("status %v, SERVING is good", resp.GetStatus())
		}
		return nil
	}
}
