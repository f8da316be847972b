package watch

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	mcsv1alpha1 "sigs.k8s.io/mcs-api/pkg/apis/v1alpha1"
	mcsv1beta1 "sigs.k8s.io/mcs-api/pkg/apis/v1beta1"
	"sigs.k8s.io/yaml"

	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/mcs"
	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/topology"
)

// Manifests are what a cluster says, read from files instead of its API server and turned into facts in the same way.
type Manifests struct {
	// Facts are what the sources of the cluster would tell. Namespaces are also those in which the cluster has any object.
	Facts mcs.Facts
	// Nodes and Places are what a source of kind Nodes would tell.
	Nodes  map[string]*Node
	Places map[mcs.ServiceKey][]Place
	// Region is the one that most Nodes are in, "" when none says.
	Region string
	// ClaimedID is the id that the cluster gives itself, "" when it does not say.
	ClaimedID string
	// Warnings say what was left out because it makes no sense, and where that stands.
	Warnings []string
}

// manifestReader reads the manifests of a cluster.
type manifestReader struct {
	out     *Manifests
	convert converter
	// at is where the reader is; seen where each object was found.
	at, object string
	seen       map[string]string

	exports    map[mcs.ServiceKey]mcs.Export
	services   map[mcs.ServiceKey]*mcs.ServiceSpec
	slices     map[mcs.ServiceKey][]*mcs.Slice
	imports    map[mcs.ServiceKey]mcs.Import
	imported   map[mcs.ServiceKey][]*mcs.Slice
	namespaces map[string]bool
}

// ReadManifests reads all files of a folder, and of those in it, that end in .yaml, .yml or .json: as `kubectl get -o yaml` writes
// them, one object each, several or a List. Kinds that mean nothing here are left out. Errors name the file and the document.
func ReadManifests(dir string) (*Manifests, error) {
	r := &manifestReader{
		out: &Manifests{
			Facts: mcs.Facts{Shards: map[mcs.ServiceKey]*mcs.Shard{}, Imports: map[mcs.ServiceKey]*mcs.ImportShard{}},
			Nodes: map[string]*Node{}, Places: map[mcs.ServiceKey][]Place{},
		},
		seen: map[string]string{}, exports: map[mcs.ServiceKey]mcs.Export{}, services: map[mcs.ServiceKey]*mcs.ServiceSpec{},
		slices: map[mcs.ServiceKey][]*mcs.Slice{}, imports: map[mcs.ServiceKey]mcs.Import{}, imported: map[mcs.ServiceKey][]*mcs.Slice{},
		namespaces: map[string]bool{},
	}
	r.convert = converter{reject: func(why Rejection) {
		r.out.Warnings = append(r.out.Warnings, fmt.Sprintf("%s: %s: something is left out that makes no sense (%s)", r.at, r.object, why))
	}}
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if ext := filepath.Ext(path); entry.IsDir() || ext != ".yaml" && ext != ".yml" && ext != ".json" {
			return nil
		}
		return r.file(path)
	})
	if err != nil {
		return nil, err
	}
	r.assemble()
	return r.out, nil
}

func (r *manifestReader) file(path string) error {
	file, err := os.Open(path) //nolint:gosec // the folder that was named
	if err != nil {
		return err
	}
	defer file.Close()
	documents := utilyaml.NewYAMLReader(bufio.NewReader(file))
	for n := 1; ; n++ {
		document, err := documents.Read()
		if errors.Is(err, io.EOF) {
			return nil
		}
		r.at = fmt.Sprintf("%s, document %d", path, n)
		if err == nil {
			err = r.document(document)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", r.at, err)
		}
	}
}

func (r *manifestReader) document(text []byte) error {
	object := bytes.TrimSpace(text)
	if !json.Valid(object) { // which is YAML too, but that takes longer to read
		var err error
		if object, err = yaml.YAMLToJSON(text); err != nil {
			return fmt.Errorf("it is no YAML: %w", err)
		}
	}
	if object = bytes.TrimSpace(object); len(object) == 0 || string(object) == "null" {
		return nil // comments alone
	}
	return r.decode(object, metav1.TypeMeta{})
}

// decode takes an object, or all of a list. It is of that type if it does not say: API servers leave it out in lists.
func (r *manifestReader) decode(text []byte, of metav1.TypeMeta) error {
	var head struct {
		metav1.TypeMeta `json:",inline"`
		Metadata        metav1.ObjectMeta `json:"metadata"`
		Items           []json.RawMessage `json:"items"`
	}
	if err := json.Unmarshal(text, &head); err != nil {
		return fmt.Errorf("it is no object of Kubernetes: %w", err)
	}
	if head.Kind == "" {
		head.TypeMeta = of
	}
	switch items, isList := strings.CutSuffix(head.Kind, "List"); {
	case head.Kind == "":
		return errors.New("it has no 'kind', so it is no object of Kubernetes")
	case isList:
		for i, item := range head.Items {
			if err := r.decode(item, metav1.TypeMeta{Kind: items, APIVersion: head.APIVersion}); err != nil {
				return fmt.Errorf("item %d: %w", i+1, err)
			}
		}
		return nil
	}
	into, namespaced := manifestKind(head.APIVersion, head.Kind)
	if into == nil {
		return nil
	}
	r.object = head.Kind + " " + head.Metadata.Name
	if namespaced {
		r.object = head.Kind + " " + head.Metadata.Namespace + "/" + head.Metadata.Name
	}
	if err := r.admit(&head.Metadata, namespaced); err != nil {
		return err
	}
	if err := json.Unmarshal(text, into); err != nil {
		return fmt.Errorf("%s: %w", r.object, err)
	}
	r.take(into)
	return nil
}

// admit checks that an object has a name and is the only one of it.
func (r *manifestReader) admit(meta *metav1.ObjectMeta, namespaced bool) error {
	switch first, twice := r.seen[r.object]; {
	case meta.Name == "":
		return fmt.Errorf("%s has no 'metadata.name'", r.object)
	case namespaced && meta.Namespace == "":
		return fmt.Errorf("%s has no 'metadata.namespace': write it, as kubectl get -o yaml does", r.object)
	case twice:
		return fmt.Errorf("%s stands in %s too: a cluster has one", r.object, first)
	}
	r.seen[r.object] = r.at
	if namespaced {
		r.namespaces[meta.Namespace] = true
	}
	return nil
}

// manifestKind returns what to decode an object into, nil for what means nothing here.
func manifestKind(apiVersion, kind string) (into any, namespaced bool) {
	group, version, grouped := strings.Cut(apiVersion, "/")
	if !grouped {
		group, version = "", apiVersion
	}
	switch group + "/" + kind {
	case "/Service":
		return &corev1.Service{}, true
	case "/Namespace":
		return &corev1.Namespace{}, false
	case "/Node":
		return &corev1.Node{}, false
	case "discovery.k8s.io/EndpointSlice":
		return &discoveryv1.EndpointSlice{}, true
	case "networking.k8s.io/ServiceCIDR":
		return &networkingv1.ServiceCIDR{}, false
	case "about.k8s.io/ClusterProperty":
		return &unstructured.Unstructured{}, false
	case "multicluster.x-k8s.io/ServiceExport":
		if version == "v1alpha1" {
			return &mcsv1alpha1.ServiceExport{}, true
		}
		return &mcsv1beta1.ServiceExport{}, true
	case "multicluster.x-k8s.io/ServiceImport":
		if version == "v1alpha1" {
			return &mcsv1alpha1.ServiceImport{}, true
		}
		return &mcsv1beta1.ServiceImport{}, true
	default:
		return nil, false
	}
}

// take turns an object into a fact, as the feeds do.
func (r *manifestReader) take(obj any) {
	switch o := obj.(type) {
	case *corev1.Namespace:
		r.namespaces[o.Name] = true
	case *corev1.Service:
		key := mcs.ServiceKey{Namespace: o.Namespace, Name: o.Name}
		r.services[key] = r.convert.service(o)
	case *discoveryv1.EndpointSlice:
		r.takeSlice(o)
	case *corev1.Node:
		r.out.Nodes[o.Name] = r.convert.node(o)
	case *networkingv1.ServiceCIDR:
		for _, text := range o.Spec.CIDRs {
			if p, err := netip.ParsePrefix(text); err == nil {
				r.out.Facts.Ranges = append(r.out.Facts.Ranges, p.Masked())
			}
		}
	case *unstructured.Unstructured:
		it := compactProperty(o).(*item)
		value, _ := it.fact.(string)
		switch it.name {
		case drainProperty:
			r.out.Facts.Drained = value == "true"
		case idProperty:
			r.out.ClaimedID = value
		}
	case *mcsv1alpha1.ServiceExport, *mcsv1beta1.ServiceExport:
		if key, export, ok := r.convert.export(o); ok {
			r.exports[key] = export
		}
	case *mcsv1alpha1.ServiceImport, *mcsv1beta1.ServiceImport:
		if key, imp, ok := r.convert.serviceImport(o); ok {
			r.imports[key] = imp
		}
	}
}

func (r *manifestReader) takeSlice(o *discoveryv1.EndpointSlice) {
	_, imported := o.Labels[labelImportName]
	_, copied := o.Labels[labelSourceCluster]
	if !imported && !copied {
		if places := r.convert.places(o); len(places) > 0 {
			r.out.Places[mcs.ServiceKey{Namespace: o.Namespace, Name: o.Name}] = places
		}
	}
	if !imported {
		if key := serviceOf(o); key.Name != "" {
			if slice := r.convert.slice(o); slice != nil {
				r.slices[key] = append(r.slices[key], slice)
			}
		}
		return
	}
	key, ok := r.convert.key(o.Namespace, o.Labels[labelImportName])
	if !ok {
		return
	}
	source, err := topology.ParseClusterID(o.Labels[labelSourceCluster])
	if err != nil {
		r.convert.reject(BadSource)
		return
	}
	if slice := r.convert.slice(o); slice != nil {
		slice.Source = source
		r.imported[key] = append(r.imported[key], slice)
	}
}

// assemble makes facts of what belongs together.
func (r *manifestReader) assemble() {
	facts := &r.out.Facts
	for key, export := range r.exports {
		facts.Shards[key] = &mcs.Shard{Export: export, Service: r.services[key], Slices: sortedSlices(r.slices[key])}
	}
	for key, imp := range r.imports {
		facts.Imports[key] = &mcs.ImportShard{Import: imp, Slices: sortedSlices(r.imported[key])}
	}
	for _, s := range r.services {
		for _, a := range s.ClusterIPs {
			if a.IsValid() {
				facts.Addresses = append(facts.Addresses, a)
			}
		}
	}
	slices.SortFunc(facts.Ranges, netip.Prefix.Compare)
	facts.Namespaces = slices.Sorted(maps.Keys(r.namespaces))
	var regions []string
	for _, n := range r.out.Nodes {
		regions = append(regions, n.Region)
	}
	r.out.Region = mostFrequent(regions)
}

func sortedSlices(all []*mcs.Slice) []*mcs.Slice {
	slices.SortFunc(all, func(a, b *mcs.Slice) int { return strings.Compare(a.Name, b.Name) })
	return all
}
