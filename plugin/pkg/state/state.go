// Package state keeps the last known facts of each source on disk, so that a server which starts while API servers are
// away answers what it knew.
//
// It owns the format of the files, their checks, and how often they are written. It refuses to know where facts come from
// or what is made of them. A file is untrusted input: whatever is wrong with one makes it count as absent, with an error
// that says why, and the next write replaces it. Files hold no secrets.
package state

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/mcs"
)

// Record is what is known of one source.
type Record struct {
	Source mcs.Source
	// Written is when the record was made, Proof the last proof of life of the source. Both are kept to the second.
	Written, Proof time.Time
	Facts          mcs.Facts
}

// What can be wrong with a file. Each is wrapped with its path and the remedy.
var (
	ErrDamaged = errors.New("the file is damaged")
	ErrForeign = errors.New("the file belongs to another source")
	ErrFormat  = errors.New("the file has a format of another version")
)

const (
	magic  = "clusterset-dns-state"
	format = 2
	// maxFile is far above what 500,000 endpoints take.
	maxFile = 1 << 30
	// trailerSize is the last line: the SHA-256 of everything before it, in hex.
	trailerSize = 2*sha256.Size + 1
	// leftover is how old a temporary file must be to be nobody's any more.
	leftover = 10 * time.Minute
)

// header is the first line of a file. The other lines but the last are entries.
type header struct {
	Magic   string
	Format  int
	Kind    string
	Cluster string
	Written int64 // Unix seconds
	Proof   int64 // likewise, 0 for none
}

// entry is one fact; exactly one field is set besides the key.
type entry struct {
	Namespace string           `json:",omitempty"`
	Name      string           `json:",omitempty"`
	Shard     *mcs.Shard       `json:",omitempty"`
	Import    *mcs.ImportShard `json:",omitempty"`
	Address   *netip.Addr      `json:",omitempty"`
	Range     *netip.Prefix    `json:",omitempty"`
	Drained   bool             `json:",omitempty"`
	// Settings are those of the member that Name describes.
	Settings map[string]string `json:",omitempty"`
}

// Path returns the file of a source. Cluster ids are DNS labels, so they can stand in a file name.
func Path(dir string, source mcs.Source) string {
	name := source.Kind.String()
	if source.Cluster != "" {
		name += "-" + string(source.Cluster)
	}
	return filepath.Join(dir, name+".state")
}

// Write replaces the file of a source, or leaves the old one as it is: the new one is written beside it, is on disk before
// it takes its place, and can be read by this user only (mode 0600).
func Write(dir string, r Record) error {
	path := Path(dir, r.Source)
	temporary, err := os.CreateTemp(dir, filepath.Base(path)+".*.tmp")
	if err != nil {
		return fmt.Errorf("state: %w: the folder must be there and this process must be allowed to write to it", err)
	}
	defer os.Remove(temporary.Name()) // it is gone when all went well
	err = encode(temporary, r)
	if err == nil {
		err = temporary.Sync()
	}
	if closed := temporary.Close(); err == nil {
		err = closed
	}
	if err == nil {
		err = os.Rename(temporary.Name(), path)
	}
	if err != nil {
		return fmt.Errorf("state: %s is not written: %w", path, err)
	}
	return syncFolder(dir)
}

// syncFolder makes a rename last.
func syncFolder(dir string) error {
	folder, err := os.Open(dir) //nolint:gosec // the folder of the Corefile
	if err != nil {
		return fmt.Errorf("state: %w", err)
	}
	defer folder.Close()
	if err := folder.Sync(); err != nil {
		return fmt.Errorf("state: %s: %w", dir, err)
	}
	return nil
}

func encode(w io.Writer, r Record) error {
	sum := sha256.New()
	buffer := bufio.NewWriterSize(io.MultiWriter(w, sum), 1<<16)
	lines := json.NewEncoder(buffer)
	h := header{Magic: magic, Format: format, Kind: r.Source.Kind.String(), Cluster: string(r.Source.Cluster), Written: r.Written.Unix()}
	if !r.Proof.IsZero() {
		h.Proof = r.Proof.Unix()
	}
	if err := lines.Encode(h); err != nil {
		return err
	}
	for e := range entries(&r.Facts) {
		if err := lines.Encode(e); err != nil {
			return err
		}
	}
	if err := buffer.Flush(); err != nil {
		return err
	}
	_, err := fmt.Fprintf(w, "%x\n", sum.Sum(nil))
	return err
}

// entries goes through facts in an order that depends on them alone.
func entries(f *mcs.Facts) func(yield func(entry) bool) {
	byKey := func(a, b mcs.ServiceKey) int { return bytes.Compare([]byte(a.String()), []byte(b.String())) }
	return func(yield func(entry) bool) {
		for _, key := range slices.SortedFunc(maps.Keys(f.Shards), byKey) {
			if !yield(entry{Namespace: key.Namespace, Name: key.Name, Shard: f.Shards[key]}) {
				return
			}
		}
		for _, key := range slices.SortedFunc(maps.Keys(f.Imports), byKey) {
			if !yield(entry{Namespace: key.Namespace, Name: key.Name, Import: f.Imports[key]}) {
				return
			}
		}
		for _, name := range slices.Sorted(slices.Values(f.Namespaces)) {
			if !yield(entry{Namespace: name}) {
				return
			}
		}
		for _, a := range slices.SortedFunc(slices.Values(f.Addresses), netip.Addr.Compare) {
			if !yield(entry{Address: &a}) {
				return
			}
		}
		for _, p := range f.Ranges {
			if !yield(entry{Range: &p}) {
				return
			}
		}
		for _, name := range slices.Sorted(maps.Keys(f.Members)) {
			if !yield(entry{Name: name, Settings: f.Members[name]}) {
				return
			}
		}
		if f.Drained {
			yield(entry{Drained: true})
		}
	}
}

// Read returns what the file of a source says. The error is fs.ErrNotExist when there is none, or ErrDamaged, ErrForeign
// or ErrFormat. Temporary files that a crash has left are removed.
func Read(dir string, source mcs.Source) (Record, error) {
	path := Path(dir, source)
	tidy(path)
	wrong := func(what error, why string) (Record, error) {
		return Record{}, fmt.Errorf("state: %s: %w: %s; it is not used, and replaced when there is something to write", path, what, why)
	}
	// A link could lead to anybody's file, and a pipe would block.
	info, err := os.Lstat(path)
	switch {
	case err != nil:
		return Record{}, fmt.Errorf("state: %w", err)
	case !info.Mode().IsRegular():
		return wrong(ErrDamaged, "it is no ordinary file")
	case info.Size() > maxFile || info.Size() < trailerSize:
		return wrong(ErrDamaged, fmt.Sprintf("it has %d octets", info.Size()))
	}
	file, err := os.Open(path) //nolint:gosec // a name of our own in the folder of the Corefile
	if err != nil {
		return Record{}, fmt.Errorf("state: %w", err)
	}
	defer file.Close()
	body := info.Size() - trailerSize
	if err := verify(file, body); err != nil {
		return wrong(ErrDamaged, err.Error())
	}
	if _, err := file.Seek(0, io.SeekStart); err != nil {
		return wrong(ErrDamaged, err.Error())
	}
	r, err := decode(bufio.NewReaderSize(io.LimitReader(file, body), 1<<16), source)
	switch {
	case errors.Is(err, ErrFormat), errors.Is(err, ErrForeign):
		return wrong(err, "another version of this program wrote it, or it was moved")
	case err != nil:
		return wrong(ErrDamaged, err.Error())
	}
	return r, nil
}

// Remove removes the file of a source, if there is one: what it said must not be taken for what another says.
func Remove(dir string, source mcs.Source) {
	_ = os.Remove(Path(dir, source)) // it is gone, or was never there
}

// tidy removes what a crash has left beside a file.
func tidy(path string) {
	old, _ := filepath.Glob(path + ".*.tmp")
	for _, name := range old {
		if info, err := os.Lstat(name); err == nil && time.Since(info.ModTime()) > leftover {
			_ = os.Remove(name) // it is tried again at the next start
		}
	}
}

// verify compares the sum of the first octets of a file with its last line.
func verify(file io.Reader, body int64) error {
	sum := sha256.New()
	if _, err := io.CopyN(sum, file, body); err != nil {
		return fmt.Errorf("it ends early: %w", err)
	}
	trailer := make([]byte, trailerSize)
	if _, err := io.ReadFull(file, trailer); err != nil {
		return fmt.Errorf("it ends early: %w", err)
	}
	if want := hex.EncodeToString(sum.Sum(nil)) + "\n"; want != string(trailer) {
		return errors.New("its checksum is wrong")
	}
	return nil
}

func decode(from io.Reader, source mcs.Source) (Record, error) {
	lines := json.NewDecoder(from)
	var h header
	if err := lines.Decode(&h); err != nil {
		return Record{}, err
	}
	switch {
	case h.Magic != magic:
		return Record{}, errors.New("it is none of ours")
	case h.Format != format:
		return Record{}, ErrFormat
	case h.Kind != source.Kind.String() || h.Cluster != string(source.Cluster):
		return Record{}, ErrForeign
	}
	r := Record{Source: source, Written: time.Unix(h.Written, 0)}
	if h.Proof != 0 {
		r.Proof = time.Unix(h.Proof, 0)
	}
	r.Facts.Shards, r.Facts.Imports = map[mcs.ServiceKey]*mcs.Shard{}, map[mcs.ServiceKey]*mcs.ImportShard{}
	lines.DisallowUnknownFields()
	for {
		var e entry
		err := lines.Decode(&e)
		if errors.Is(err, io.EOF) {
			return r, nil
		}
		if err == nil {
			err = e.check()
		}
		if err != nil {
			return Record{}, err
		}
		e.addTo(&r.Facts)
	}
}

func (e *entry) addTo(f *mcs.Facts) {
	key := mcs.ServiceKey{Namespace: e.Namespace, Name: e.Name}
	switch {
	case e.Shard != nil:
		f.Shards[key] = e.Shard
	case e.Import != nil:
		f.Imports[key] = e.Import
	case e.Address != nil:
		f.Addresses = append(f.Addresses, *e.Address)
	case e.Range != nil:
		f.Ranges = append(f.Ranges, *e.Range)
	case e.Drained:
		f.Drained = true
	case e.Settings != nil:
		if f.Members == nil {
			f.Members = map[string]map[string]string{}
		}
		f.Members[e.Name] = e.Settings
	default:
		f.Namespaces = append(f.Namespaces, e.Namespace)
	}
}
