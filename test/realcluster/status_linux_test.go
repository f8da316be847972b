package realcluster

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/clusterset-dns/clusterset-dns/test/readme"
)

// statusProperty and portForward are as deploy/README.md prints them.
const (
	statusProperty = "status localhost:9154"
	portForward    = "kubectl --context east -n kube-system port-forward deployment/coredns 9154"
)

// statusScript runs the first command beside the others, once it forwards.
const statusScript = `%[1]s > forward.log 2>&1 &
forward=$!
tries=300
until %[2]s members > members.txt 2> complaint.txt; do
	tries=$((tries - 1))
	test $tries -gt 0 || break
	sleep 0.1
done
cat complaint.txt >&2
cat members.txt
%[2]s explain web.shop.svc.clusterset.local --client %[3]s
result=$?
kill $forward
wait $forward 2> /dev/null
exit $result
`

// testStatus asks a replica of each cluster through kubectl and the kubelet.
func (w *world) testStatus(t *testing.T) string {
	t.Helper()
	var took []string
	for _, at := range []struct {
		operator readme.Operator
		cluster  *cluster
	}{{w.atEast, w.east}, {w.atWest, w.west}} {
		probe, err := at.cluster.nodes[0].probe(t.Context())
		must(t, err)
		at.operator.Prints(t, statusProperty)
		at.operator.Prints(t, portForward)
		begin := time.Now()
		told := at.operator.Run(t, fmt.Sprintf(statusScript, portForward, built.Control, probe.Status.PodIP))
		took = append(took, seconds(time.Since(begin)))
		for _, want := range []string{"east", "west", "synced", "web.shop.svc.clusterset.local", probe.Status.PodIP} {
			if !strings.Contains(told, want) {
				t.Errorf("%s: nothing is said of %q:\n%s", at.cluster.name, want, told)
			}
		}
	}
	return strings.Join(took, ", ")
}
