package status

// Version is the version of the documents, a word of every path and of every document. Within a version fields are added and
// never changed or taken away, so that an older client reads what a newer server says.
const Version = "v1"

// Paths of the documents, below the status address.
const (
	PathMembers  = "/api/" + Version + "/members"
	PathServices = "/api/" + Version + "/services" // + "/NAMESPACE/NAME" for one of them
	PathExplain  = "/api/" + Version + "/explain"  // ?name=NAME&type=TYPE&client=ADDRESS
)

// PathZones leads to what the server block with a zone tells: PathZones + ZONE + any other path. Without it the first block
// tells, and names are explained by the block that answers them.
const PathZones = "/zones/"

// Error is the document of an answer that is not 200 OK.
type Error struct {
	Version string `json:"version"`
	// Error says what is wrong and what to do about it, in one sentence.
	Error string `json:"error"`
}

// Members is the document at PathMembers.
type Members struct {
	Version string `json:"version"`
	Server  Server `json:"server"`
	// Members are in the order of their ids.
	Members []Member `json:"members"`
	// Refused are descriptions of members that are not used, in the order of their names.
	Refused []Refused `json:"refused"`
}

// Server says which server tells this.
type Server struct {
	// Program is the version of the program.
	Program string   `json:"program"`
	Zones   []string `json:"zones"`
	// OtherZones are those of other server blocks that have the same status address: what they tell stands below PathZones.
	OtherZones []string `json:"otherZones,omitempty"`
	// Local is the id of the cluster it runs in, "" when none is configured.
	Local string `json:"local,omitempty"`
	// Generation counts the snapshots since the start, Serial is the SOA serial of the zone.
	Generation uint64 `json:"generation"`
	Serial     uint32 `json:"serial"`
	// Time is when this was told (RFC 3339).
	Time string `json:"time"`
	// PolicyHash is the metric policy_hash: servers that were told the same have the same.
	PolicyHash string `json:"policyHash"`
	Services   int    `json:"services"`
	// Prefer, Answer and PanicPercent are the stanza's policy.
	Prefer       []string `json:"prefer"`
	Answer       string   `json:"answer"`
	PanicPercent int      `json:"panicPercent"`
	MaxAnswers   int      `json:"maxAnswers,omitempty"`
	TTLSeconds   uint32   `json:"ttlSeconds"`
	Shadow       bool     `json:"shadow,omitempty"`
}

// Refused is a description of a member that is not used.
type Refused struct {
	Name   string `json:"name"`
	Reason string `json:"reason"` // id, kubeconfig, setting, duplicate or too_many
	Detail string `json:"detail,omitempty"`
}

// Member is a cluster of the ClusterSet.
type Member struct {
	ID string `json:"id"`
	// Origin says where it is configured: corefile, secret NAMESPACE/NAME or file PATH.
	Origin  string   `json:"origin"`
	Local   bool     `json:"local,omitempty"`
	Region  string   `json:"region,omitempty"`
	Address string   `json:"address"` // clusterip, loadbalancer, endpoints, fixed or none
	Gateway []string `json:"gateway,omitempty"`
	// Weight is the configured weight; absent where it follows from the ready endpoints.
	Weight     *int     `json:"weight,omitempty"`
	Allow      []string `json:"allow,omitempty"`
	Namespaces []string `json:"namespaces,omitempty"`
	// ClaimedID is the id that the cluster itself says it has, where that is another one.
	ClaimedID string `json:"claimedId,omitempty"`
	Drained   bool   `json:"drained,omitempty"`
	// Sources are the watches of its API server.
	Sources []Source `json:"sources"`
	Health  Health   `json:"health"`
	// Services and Endpoints count what is held of it.
	Services  int `json:"services"`
	Endpoints int `json:"endpoints"`
	// Rejections count, by reason, what it sent and was left out since the start; Unusable and Invalid, by reason, the services
	// that it takes no part in now, and its ServiceExports that export nothing.
	Rejections map[string]uint64 `json:"rejections,omitempty"`
	Unusable   map[string]int    `json:"unusable,omitempty"`
	Invalid    map[string]int    `json:"invalid,omitempty"`
}

// Source is one use of a member's API server.
type Source struct {
	Kind string `json:"kind"` // exports, imports, namespaces, nodes ...
	// State is syncing, synced, stale, expired or timed_out.
	State string `json:"state"`
	// ProofAgeSeconds is the time since the last proof of life; absent before the first.
	ProofAgeSeconds *float64 `json:"proofAgeSeconds,omitempty"`
	// CredentialExpiry is when its credentials end (RFC 3339), absent where that is not known.
	CredentialExpiry string `json:"credentialExpiry,omitempty"`
	Insecure         bool   `json:"insecure,omitempty"` // its certificate is not verified
	// Problems are the resources that cannot be read, with the reason.
	Problems map[string]string `json:"problems,omitempty"`
	// Held are the resources of which a list is not believed yet, because most of what was known has vanished from it.
	Held []string `json:"held,omitempty"`
}

// Health says how well a member serves.
type Health struct {
	State  string `json:"state"` // healthy, degraded, unhealthy or excluded
	Reason string `json:"reason,omitempty"`
	Probed bool   `json:"probed,omitempty"`
	// Factor scales its weight during slow start, above 0 and up to 1.
	Factor float64 `json:"factor"`
	// History are the last changes, the newest first.
	History []HealthChange `json:"history,omitempty"`
}

// HealthChange is a change of a member's health.
type HealthChange struct {
	Time   string `json:"time"` // RFC 3339
	State  string `json:"state"`
	Reason string `json:"reason,omitempty"`
}

// Services is the document at PathServices: all of them, in the order of their names.
type Services struct {
	Version  string           `json:"version"`
	Services []ServiceSummary `json:"services"`
	// Matrix says what share of the clients at each place each member gets, on average over the services that have one.
	Matrix []MatrixRow `json:"matrix,omitempty"`
}

// ServiceSummary is a line of the table of services.
type ServiceSummary struct {
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
	Type      string `json:"type"` // ClusterSetIP or Headless
	// Imported is true where a ServiceImport is the truth.
	Imported bool     `json:"imported,omitempty"`
	Members  []string `json:"members"`
	// Weights are what the members are drawn by in a tier, before their health, in the order of Members.
	Weights []float64 `json:"weights,omitempty"`
	// Ready of Total endpoints.
	Ready int `json:"ready"`
	Total int `json:"total"`
	// Conflicts are reasons of the ServiceExport condition Conflict (KEP-1645).
	Conflicts []string `json:"conflicts,omitempty"`
	// LeftOut are members that take no part, or not with all that they have, with the reason as Member.Unusable and Invalid have it.
	LeftOut map[string]string `json:"leftOut,omitempty"`
}

// Service is the document at PathServices/NAMESPACE/NAME.
type Service struct {
	Version string `json:"version"`
	ServiceSummary
	// FQDN is its name in the first zone, with the last dot.
	FQDN                string         `json:"fqdn"`
	IPs                 []string       `json:"ips,omitempty"` // of the ServiceImport
	Ports               []Port         `json:"ports"`
	ClientIPAffinity    bool           `json:"clientIPAffinity,omitempty"`
	TrafficDistribution string         `json:"trafficDistribution,omitempty"`
	Contributions       []Contribution `json:"contributions"`
	// Unusable are the members of LeftOut with the reason in words, and the remedy.
	Unusable map[string]string `json:"unusable,omitempty"`
	// Matrix says what share of the clients at each place each member gets.
	Matrix []MatrixRow `json:"matrix"`
}

// Port is a port of a service.
type Port struct {
	Name     string `json:"name,omitempty"`
	Protocol string `json:"protocol"`
	Number   uint16 `json:"number"`
}

// Contribution is a member's part of a service.
type Contribution struct {
	Member    string   `json:"member"`
	Addresses []string `json:"addresses,omitempty"` // none for Headless
	Ready     int      `json:"ready"`
	Total     int      `json:"total"`
	// Weight is what a member of a tier is drawn by, before its health.
	Weight float64 `json:"weight"`
	// Exported is when its ServiceExport was made (RFC 3339); the oldest wins conflicts.
	Exported string `json:"exported,omitempty"`
}

// MatrixRow says who gets what.
type MatrixRow struct {
	Region  string `json:"region,omitempty"`
	Cluster string `json:"cluster,omitempty"`
	Zone    string `json:"zone,omitempty"`
	// Shares sum up to 1 over the members, or are none where nobody serves.
	Shares map[string]float64 `json:"shares"`
}
