package topology

import (
	"strings"
	"testing"
)

func TestParseClusterID(t *testing.T) {
	long := strings.Repeat("a", 63)
	for _, tc := range []struct {
		name, in string
		want     ClusterID
		err      string // part of the error, "" for none
	}{
		{"one label is a cluster's name", "east", "east", ""},
		{"two labels are name and registry", "east.eu", "east.eu", ""},
		{"a UID that begins with a digit, as KEP-2149 recommends", "0a5f1c2e-7d0b-4a6e-9a51-3a1f0f6d2b11", "0a5f1c2e-7d0b-4a6e-9a51-3a1f0f6d2b11", ""},
		{"upper case is folded, DNS compares without case", "East.EU", "east.eu", ""},
		{"digits only", "1", "1", ""},
		{"hyphens inside", "eu-west--1", "eu-west--1", ""},
		{"two labels of full length", long + "." + long, ClusterID(long + "." + long), ""},
		{"nothing", "", "", "empty"},
		{"a label that is too long", long + "a", "", "not one DNS label or two"},
		{"too long altogether", long + "." + long + "a", "", "at most 127"},
		{"three labels", "a.b.c", "", "not one DNS label or two"},
		{"a dot at the end", "east.", "", "not one DNS label or two"},
		{"a dot at the beginning", ".east", "", "not one DNS label or two"},
		{"only a dot", ".", "", "not one DNS label or two"},
		{"a hyphen at the end of a label", "east-.eu", "", "not one DNS label or two"},
		{"a hyphen at the beginning of a label", "east.-eu", "", "not one DNS label or two"},
		{"an underscore", "ea_st", "", "not one DNS label or two"},
		{"a space", "ea st", "", "not one DNS label or two"},
		{"a letter outside ASCII", "öst", "", "not one DNS label or two"},
		{"a letter outside ASCII that folds into ASCII", "\u212Aeast", "", "not one DNS label or two"},
		{"an octet that is no UTF-8", "ea\xffst", "", "not one DNS label or two"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, err := ParseClusterID(tc.in)
			if got != tc.want {
				t.Errorf("ParseClusterID(%q) = %q, want %q", tc.in, got, tc.want)
			}
			switch {
			case (err == nil) != (tc.err == ""):
				t.Errorf("ParseClusterID(%q): error %v, want one that says %q", tc.in, err, tc.err)
			case err != nil && !strings.Contains(err.Error(), tc.err):
				t.Errorf("ParseClusterID(%q): error %q does not say %q", tc.in, err, tc.err)
			}
		})
	}
}

func TestIsLabel(t *testing.T) {
	for _, tc := range []struct {
		name, in string
		want     bool
	}{
		{"a letter", "a", true},
		{"a digit", "0", true},
		{"letters, digits, hyphens", "db-0-a1", true},
		{"63 octets", strings.Repeat("x", 63), true},
		{"64 octets", strings.Repeat("x", 64), false},
		{"nothing", "", false},
		{"upper case", "A", false},
		{"a hyphen alone", "-", false},
		{"a hyphen first", "-a", false},
		{"a hyphen last", "a-", false},
		{"a dot", "a.b", false},
		{"an underscore", "_a", false},
		{"NUL", "a\x00b", false},
		{"an octet above 127", "a\x80b", false},
		{"a slash, next to the digits in ASCII", "/", false},
		{"a colon, next to the digits in ASCII", ":", false},
		{"a backtick, next to the letters in ASCII", "`", false},
		{"a brace, next to the letters in ASCII", "{", false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := IsLabel(tc.in); got != tc.want {
				t.Errorf("IsLabel(%q) = %v, want %v", tc.in, got, tc.want)
			}
		})
	}
}

func FuzzParseClusterID(f *testing.F) {
	for _, s := range []string{"", "east", "East.EU", "a.b.c", "\u212A", "-", strings.Repeat("a", 128)} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		id, err := ParseClusterID(s)
		if err != nil {
			if id != "" {
				t.Errorf("An error and the id %q", id)
			}
			return
		}
		again, err := ParseClusterID(string(id))
		if err != nil || again != id {
			t.Errorf("ParseClusterID(%q) is %q, which parses to %q, %v", s, id, again, err)
		}
		if len(id) != len(s) || !strings.EqualFold(string(id), s) {
			t.Errorf("ParseClusterID(%q) is %q, another name", s, id)
		}
		for label := range strings.SplitSeq(string(id), ".") {
			if !IsLabel(label) {
				t.Errorf("ParseClusterID(%q) is %q, in which %q is no label", s, id, label)
			}
		}
	})
}
