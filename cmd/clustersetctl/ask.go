package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/status"
)

const (
	// patience is how long a server may take for an answer.
	patience = 20 * time.Second
	// largest is how many octets a document can have: 50,000 services of a hundred clusters fit.
	largest = 256 << 20
)

// ask fetches a document and reads it into a value of its type. The document is returned too, since a newer server may say more.
func ask[T any](ctx context.Context, t *terminal, path string, query url.Values) (into T, document []byte, err error) {
	base, err := url.Parse(t.server)
	if err != nil || base.Scheme != "http" && base.Scheme != "https" || base.Host == "" {
		return into, nil, usage("--server %q is no URL such as %s", t.server, usualServer)
	}
	base.Path = strings.TrimSuffix(base.Path, "/") + path
	base.RawQuery = query.Encode()
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	document, code, err := get(ctx, base.String())
	if err != nil {
		return into, nil, failure{fmt.Errorf("cannot reach %s: %w; is the status address on ('status' in the stanza of clusterset), "+
			"and is a port forwarded to it?", t.server, reason(err)), exitUnreachable}
	}
	if code != http.StatusOK {
		return into, nil, refused(t.server, code, document)
	}
	if err := json.Unmarshal(document, &into); err != nil {
		return into, nil, failure{fmt.Errorf("%s does not talk like a status address: %w", t.server, err), exitUnreachable}
	}
	return into, document, nil
}

// reason is an error of net/http without the URL, which has been said.
func reason(err error) error {
	if u, ok := errors.AsType[*url.Error](err); ok {
		return u.Err
	}
	return err
}

func get(ctx context.Context, address string) (body []byte, code int, err error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, address, http.NoBody)
	if err != nil {
		return nil, 0, err
	}
	request.Header.Set("Accept", "application/json")
	client := http.Client{Transport: &http.Transport{Proxy: http.ProxyFromEnvironment, DisableKeepAlives: true}}
	response, err := client.Do(request)
	if err != nil {
		return nil, 0, err
	}
	defer response.Body.Close()
	body, err = io.ReadAll(io.LimitReader(response.Body, largest))
	return body, response.StatusCode, err
}

// refused says what a server said that has no document: that there is none is an answer, that the question makes no sense is a
// fault of the command line, and everything else one of the server.
func refused(server string, code int, document []byte) error {
	var said status.Error
	if err := json.Unmarshal(document, &said); err != nil || said.Error == "" {
		return failure{fmt.Errorf("%s does not talk like a status address: it answers with %d %s", server, code, http.StatusText(code)), exitUnreachable}
	}
	exit := exitUnreachable
	switch code {
	case http.StatusNotFound:
		exit = exitNegative
	case http.StatusBadRequest:
		exit = exitUsage
	}
	return failure{errors.New(said.Error), exit}
}
