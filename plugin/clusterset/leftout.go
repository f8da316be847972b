package clusterset

import (
	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/mcs"
	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/topology"
)

// The reasons for which an export exports nothing, as the ServiceExport condition Valid has them (mcs-api v1beta1).
const (
	reasonNoService   = "NoService"
	reasonInvalidType = "InvalidServiceType"
)

// eachLeftOut calls f for each cluster that takes no part in a service, or not with all that it has, with the reason: one of the
// above where the export itself is not valid, else an mcs.UnusableReason.
func eachLeftOut(r mcs.Report, f func(id topology.ClusterID, reason string, valid bool)) {
	for _, id := range r.NoService {
		f(id, reasonNoService, false)
	}
	for _, id := range r.InvalidType {
		f(id, reasonInvalidType, false)
	}
	for _, u := range r.Unusable {
		f(u.Cluster, string(u.Reason), true)
	}
}

// leftOutOf returns them by cluster, nil where all take part.
func leftOutOf(r mcs.Report) (out map[string]string) {
	eachLeftOut(r, func(id topology.ClusterID, reason string, _ bool) {
		if out == nil {
			out = map[string]string{}
		}
		out[string(id)] = reason
	})
	return out
}

// leftOutBecause says a reason in words, with the remedy.
func leftOutBecause(reason string) string {
	switch reason {
	case reasonNoService:
		return "its export is invalid: it has no Service of this name"
	case reasonInvalidType:
		return "its export is invalid: a Service of type ExternalName cannot be exported"
	}
	return unusableBecause[mcs.UnusableReason(reason)]
}

// countLeftOut counts, by member and reason, the services that members take no part in, and exports that export nothing.
func countLeftOut(snapshot *mcs.Snapshot) (unusable, invalid map[topology.ClusterID]map[string]int) {
	unusable, invalid = map[topology.ClusterID]map[string]int{}, map[topology.ClusterID]map[string]int{}
	snapshot.Reports(func(_ mcs.ServiceKey, r *mcs.Report) bool {
		eachLeftOut(*r, func(id topology.ClusterID, reason string, valid bool) {
			in := invalid
			if valid {
				in = unusable
			}
			if in[id] == nil {
				in[id] = map[string]int{}
			}
			in[id][reason]++
		})
		return true
	})
	return unusable, invalid
}
