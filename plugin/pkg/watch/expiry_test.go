package watch

import (
	"encoding/base64"
	"testing"
	"time"

	"k8s.io/client-go/rest"
)

func jwt(payload string) string {
	return "e30." + base64.RawURLEncoding.EncodeToString([]byte(payload)) + ".c2ln"
}

func TestCredentialExpiry(t *testing.T) {
	soon, late := time.Unix(1_800_000_000, 0), time.Unix(1_900_000_000, 0)
	cert, key := certificate(t, "x", late)
	for _, tc := range []struct {
		name   string
		config rest.Config
		plugin credentials
		want   time.Time
	}{
		{"nothing ends", rest.Config{BearerToken: "opaque"}, credentials{}, time.Time{}},
		{"a client certificate", rest.Config{TLSClientConfig: rest.TLSClientConfig{CertData: cert, KeyData: key}}, credentials{}, late},
		{"a token", rest.Config{BearerToken: jwt(`{"exp": 1800000000}`)}, credentials{}, soon},
		{"the earlier of both", rest.Config{BearerToken: jwt(`{"exp": 1800000000}`), TLSClientConfig: rest.TLSClientConfig{CertData: cert, KeyData: key}}, credentials{}, soon},
		{"what a plugin says", rest.Config{}, credentials{token: "opaque", expiry: soon}, soon},
		{"the certificate of a plugin", rest.Config{}, credentials{certificate: cert, key: key}, late},
		{"a token that never ends", rest.Config{BearerToken: jwt(`{"sub": "x"}`)}, credentials{}, time.Time{}},
		{"a token whose end is no number", rest.Config{BearerToken: jwt(`{"exp": "soon"}`)}, credentials{}, time.Time{}},
		{"a token whose end is beyond all time", rest.Config{BearerToken: jwt(`{"exp": 1e300}`)}, credentials{}, time.Time{}},
		{"a token that ended before time", rest.Config{BearerToken: jwt(`{"exp": -1}`)}, credentials{}, time.Time{}},
		{"a fraction of a second", rest.Config{BearerToken: jwt(`{"exp": 1800000000.5}`)}, credentials{}, soon},
		{"something with two dots", rest.Config{BearerToken: "a.b.c"}, credentials{}, time.Time{}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			tc.config.Host = "https://192.0.2.1"
			r, err := newRoute(settings{config: tc.plugin.in(&tc.config)}, tc.plugin.expiry)
			if err != nil {
				t.Fatal(err)
			}
			a := newAccess("it", settings{}, nil)
			a.current.Store(r)
			if got := a.expiry(); !got.Equal(tc.want) {
				t.Errorf("It ends at %v, want %v", got, tc.want)
			}
		})
	}
}
