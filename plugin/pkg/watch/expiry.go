package watch

import (
	"encoding/base64"
	"encoding/json"
	"math"
	"strings"
	"time"
)

// earliest returns the first of the given times that is known, the zero time when none is.
func earliest(times ...time.Time) time.Time {
	var first time.Time
	for _, t := range times {
		if !t.IsZero() && (first.IsZero() || t.Before(first)) {
			first = t
		}
	}
	return first
}

// certificateExpiry returns when a client certificate ends, the zero time when there is none.
func certificateExpiry(text []byte) time.Time {
	if leaf := firstCertificate(text); leaf != nil {
		return leaf.NotAfter
	}
	return time.Time{}
}

// tokenExpiry returns when a token says that it ends (the claim exp of RFC 7519, section 4.1.4), the zero time when it
// says nothing. Nobody verifies the token here.
func tokenExpiry(token string) time.Time {
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return time.Time{}
	}
	text, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		return time.Time{}
	}
	var claims struct {
		Expires float64 `json:"exp"` // seconds since 1970
	}
	if err := json.Unmarshal(text, &claims); err != nil || claims.Expires <= 0 || claims.Expires > math.MaxInt32*100 {
		return time.Time{}
	}
	return time.Unix(int64(claims.Expires), 0)
}
