package status

// Explanation is the document at PathExplain: why a client is answered as it is, now.
type Explanation struct {
	Version string `json:"version"`
	// Name, Type and Client are what was asked.
	Name   string `json:"name"`
	Type   string `json:"type"`
	Client Client `json:"client"`
	// Kind says what the name is: zone, version, server, namespace, service, port, endpoint or none of them.
	Kind string `json:"kind"`
	// Service is NAMESPACE/NAME where there is one.
	Service     string `json:"service,omitempty"`
	ServiceType string `json:"serviceType,omitempty"`
	// Verdict says in one sentence what is answered and why.
	Verdict string `json:"verdict"`
	// Candidates are all members, or for a headless service all places, that could be given, the nearest tier first.
	Candidates []Candidate `json:"candidates,omitempty"`
	Tiers      []Tier      `json:"tiers,omitempty"`
	Draw       *Draw       `json:"draw,omitempty"`
	Answer     Answer      `json:"answer"`
}

// Client is who asks.
type Client struct {
	Address string `json:"address"`
	Region  string `json:"region,omitempty"`
	Cluster string `json:"cluster,omitempty"`
	Zone    string `json:"zone,omitempty"`
	Node    string `json:"node,omitempty"`
	// Source says how its place was found: address, cidr, podcidr, cluster or none. Because says it in words.
	Source  string `json:"source"`
	Because string `json:"because,omitempty"`
}

// Candidate is a member, or an endpoint of a headless service, that could be answered.
type Candidate struct {
	Member string `json:"member"`
	Region string `json:"region,omitempty"`
	Zone   string `json:"zone,omitempty"`
	Node   string `json:"node,omitempty"`
	// Host is the host label of an endpoint of a headless service.
	Host      string   `json:"host,omitempty"`
	Addresses []string `json:"addresses,omitempty"`
	// MemberState is the state of the watch of its exports, ProofAgeSeconds how long ago its API server last said something.
	MemberState     string   `json:"memberState,omitempty"`
	ProofAgeSeconds *float64 `json:"proofAgeSeconds,omitempty"`
	Health          string   `json:"health"`
	HealthReason    string   `json:"healthReason,omitempty"`
	Ready           int      `json:"ready"`
	Total           int      `json:"total"`
	// Weight is what it is drawn by within its tier; Tier counts from 0, the nearest; -1 when it is in none.
	Weight float64 `json:"weight"`
	Tier   int     `json:"tier"`
	// Kept is true when the answer holds it. Reason says why it was kept or dropped, in a few words.
	Kept   bool   `json:"kept"`
	Reason string `json:"reason"`
}

// Tier is a set of candidates at the same distance.
type Tier struct {
	Tier int `json:"tier"`
	// Distance says what they share with the client, such as "same zone" or "same region".
	Distance string `json:"distance"`
	// Healthy, Degraded, Excluded of Total endpoints.
	Healthy  int `json:"healthy"`
	Degraded int `json:"degraded"`
	Excluded int `json:"excluded"`
	Total    int `json:"total"`
	// HealthyPercent and DegradedPercent are the shares of clients that the tier takes (Envoy's priority load).
	HealthyPercent  float64 `json:"healthyPercent"`
	DegradedPercent float64 `json:"degradedPercent"`
	Panic           bool    `json:"panic,omitempty"`
}

// Draw is the chance in an answer: the same for one client, service and epoch.
type Draw struct {
	// Point in [0, 100) decides for a tier.
	Point float64 `json:"point"`
	// Epoch is the current one, of EpochSeconds (the TTL); 0 with session affinity, where the draw never changes.
	Epoch        int64  `json:"epoch"`
	EpochSeconds uint32 `json:"epochSeconds"`
	Sticky       bool   `json:"sticky,omitempty"`
	// Tier is what it fell on, Part says healthy, degraded or panic; Member is "" when several answer.
	Tier   int    `json:"tier"`
	Part   string `json:"part,omitempty"`
	Member string `json:"member,omitempty"`
}

// Answer is what a query from that client gets now.
type Answer struct {
	// Rcode is NOERROR, NXDOMAIN, SERVFAIL or REFUSED; Next is true when the next plugin answers instead (fallthrough, shadow).
	Rcode     string `json:"rcode"`
	Next      bool   `json:"next,omitempty"`
	Truncated bool   `json:"truncated,omitempty"`
	// The sections, each record in presentation format (RFC 1035 section 5.1).
	Answer     []string `json:"answer"`
	Authority  []string `json:"authority,omitempty"`
	Additional []string `json:"additional,omitempty"`
}
