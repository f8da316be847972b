// Package observe makes the Grafana dashboard, deploy/dashboard.json, and holds tests of it and of the alerts in
// deploy/alerts: on a real Prometheus, by what the real server tells.
package observe

import (
	"encoding/json"
	"fmt"
	"strings"

	"github.com/grafana/grafana-foundation-sdk/go/common"
	"github.com/grafana/grafana-foundation-sdk/go/dashboard"
	"github.com/grafana/grafana-foundation-sdk/go/prometheus"
	"github.com/grafana/grafana-foundation-sdk/go/timeseries"
	"github.com/grafana/grafana-foundation-sdk/go/units"
)

// servers selects the series of the servers that are chosen in the dashboard; expressions say SERVERS for it.
const servers = `job=~"$job"`

// row is a heading and the panels under it.
type row struct {
	title  string
	panels []panel
}

// panel is one graph. Each query is an expression and the legend of its lines.
type panel struct {
	title, tells, unit string
	queries            [][2]string
}

// rows are the dashboard, from what clients notice to what the server is made of.
var rows = []row{
	{"Queries and answers", []panel{
		{"Queries", "DNS queries per second, by server block and view.", "reqps", [][2]string{
			{`sum by (zone, view) (rate(coredns_dns_requests_total{SERVERS}[$__rate_interval]))`, "{{zone}} {{view}}"},
		}},
		{"Answers", "By server block and response code. SERVFAIL in clusterset.local: a cluster that might have the name was never read.", "reqps", [][2]string{
			{`sum by (zone, rcode) (rate(coredns_dns_responses_total{SERVERS}[$__rate_interval]))`, "{{zone}} {{rcode}}"},
		}},
		{"Latency", "Of all queries that the server answers, those it forwards included.", units.Seconds, [][2]string{
			{`histogram_quantile(0.5, sum by (le) (rate(coredns_dns_request_duration_seconds_bucket{SERVERS}[$__rate_interval])))`, "median"},
			{`histogram_quantile(0.99, sum by (le) (rate(coredns_dns_request_duration_seconds_bucket{SERVERS}[$__rate_interval])))`, "99 %"},
		}},
	}},
	{"Members", []panel{
		{"Replicas by state of a member", "How many replicas have a source in which state. All in one line is good: they agree.", units.Short, [][2]string{
			{`sum by (cluster, source, state) (coredns_clusterset_member_state{SERVERS, source=~"exports|imports"}) > 0`, "{{cluster}} {{source}} {{state}}"},
		}},
		{"Age of the last proof of life", "The oldest of all replicas. 15 s are normal, more than a minute is stale.", units.Seconds, [][2]string{
			{`max by (cluster, source) (coredns_clusterset_member_proof_age_seconds{SERVERS})`, "{{cluster}} {{source}}"},
		}},
		{"Endpoints", "Endpoint addresses held of each member, by the replica that holds most.", units.Short, [][2]string{
			{`max by (cluster, source) (coredns_clusterset_member_endpoints{SERVERS})`, "{{cluster}} {{source}}"},
		}},
		{"Services", "Services held of each member: the most and the least that a replica has.", units.Short, [][2]string{
			{`max by (cluster, source) (coredns_clusterset_member_services{SERVERS})`, "{{cluster}} {{source}} most"},
			{`min by (cluster, source) (coredns_clusterset_member_services{SERVERS})`, "{{cluster}} {{source}} least"},
		}},
		{"Health", "How many replicas find a member in which state, by their probes.", units.Short, [][2]string{
			{`sum by (cluster, state) (coredns_clusterhealth_member_state{SERVERS}) > 0`, "{{cluster}} {{state}}"},
			{`max(coredns_clusterhealth_frozen{SERVERS})`, "guard against mass failure"},
		}},
		{"Credentials end in", "Absent where a credential does not end.", units.Seconds, [][2]string{
			{`min by (cluster) (coredns_clusterset_credential_expiry_timestamp_seconds{SERVERS}) - time()`, "{{cluster}}"},
		}},
	}},
	{"What was left out", []panel{
		{"Rejections", "Things of members that make no sense, per second.", "cps", [][2]string{
			{`sum by (cluster, reason) (rate(coredns_clusterset_rejections_total{SERVERS}[$__rate_interval]))`, "{{cluster}} {{reason}}"},
		}},
		{"Conflicts and unusable services", "Services whose exports disagree, and services in which a member takes no part.", units.Short, [][2]string{
			{`max by (reason) (coredns_clusterset_conflicts{SERVERS}) > 0`, "{{reason}}"},
			{`max by (cluster, reason) (coredns_clusterset_unusable_services{SERVERS}) > 0`, "{{cluster}} {{reason}}"},
		}},
		{"Collapses and problems", "Lists that are not believed at once, and resources that cannot be read.", units.Short, [][2]string{
			{`sum by (cluster, resource) (increase(coredns_clusterset_collapses_total{SERVERS}[$__rate_interval]))`, "{{cluster}} {{resource}} collapsed"},
			{`max by (cluster, resource) (coredns_clusterset_collapse_held{SERVERS}) > 0`, "{{cluster}} {{resource}} held"},
			{`max by (cluster, resource, reason) (coredns_clusterset_watch_problem{SERVERS}) > 0`, "{{cluster}} {{resource}} {{reason}}"},
		}},
	}},
	{"Servers", []panel{
		{"Time to publish a change", "Merging what changed and making it visible, within the server.", units.Seconds, [][2]string{
			{`histogram_quantile(0.99, sum by (le) (rate(coredns_clusterset_snapshot_build_duration_seconds_bucket{SERVERS}[$__rate_interval])))`, "99 %"},
			{`sum(rate(coredns_clusterset_snapshot_build_duration_seconds_sum{SERVERS}[$__rate_interval])) / sum(rate(coredns_clusterset_snapshot_build_duration_seconds_count{SERVERS}[$__rate_interval]))`, "mean"},
		}},
		{"Events", "Objects received from API servers, per second.", "cps", [][2]string{
			{`sum by (cluster, event) (rate(coredns_clusterset_events_total{SERVERS}[$__rate_interval]))`, "{{cluster}} {{event}}"},
		}},
		{"Memory", "Resident memory of each replica.", units.BytesIEC, [][2]string{
			{`process_resident_memory_bytes{SERVERS}`, "{{instance}}"},
		}},
		{"Policies", "How many different policies the replicas have: 1 is good.", units.Short, [][2]string{
			{`count by (job, namespace) (count_values by (job, namespace) ("policy", coredns_clusterset_policy_hash{SERVERS}))`, "{{job}} {{namespace}}"},
		}},
	}},
}

// Dashboard returns the dashboard as JSON, as Grafana imports it.
func Dashboard() ([]byte, error) {
	d := dashboard.NewDashboardBuilder("ClusterSet DNS").
		Uid("clusterset-dns").
		Description("Servers with the plugins clusterset and clusterhealth.").
		Tags([]string{"dns", "coredns"}).
		Time("now-1h", "now").
		Refresh("30s").
		Timezone(common.TimeZoneBrowser).
		WithVariable(dashboard.NewDatasourceVariableBuilder("datasource").Label("Data source").Type("prometheus")).
		WithVariable(dashboard.NewQueryVariableBuilder("job").
			Label("Servers").
			Datasource(source()).
			Query(dashboard.StringOrMap{String: new("label_values(coredns_clusterset_policy_hash, job)")}).
			Refresh(dashboard.VariableRefreshOnDashboardLoad).
			Multi(true).
			IncludeAll(true))
	for _, r := range rows {
		d.WithRow(dashboard.NewRowBuilder(r.title))
		for _, p := range r.panels {
			d.WithPanel(p.build())
		}
	}
	built, err := d.Build()
	if err != nil {
		return nil, fmt.Errorf("build the dashboard: %w", err)
	}
	text, err := json.MarshalIndent(built, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("write the dashboard: %w", err)
	}
	return append(text, '\n'), nil
}

// source is the data source that is chosen in the dashboard.
func source() common.DataSourceRef {
	return common.DataSourceRef{Type: new("prometheus"), Uid: new("${datasource}")}
}

func (p panel) build() *timeseries.PanelBuilder {
	const third, height = 8, 8 // a row is 24 wide
	b := timeseries.NewPanelBuilder().Title(p.title).Description(p.tells).Unit(p.unit).Min(0).Span(third).Height(height).Datasource(source())
	for i, q := range p.queries {
		b.WithTarget(prometheus.NewDataqueryBuilder().
			RefId(string(rune('A' + i))).
			Expr(strings.ReplaceAll(q[0], "SERVERS", servers)).
			LegendFormat(q[1]))
	}
	return b
}
