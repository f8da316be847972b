// Package balance chooses which part of a merged service a client is given: tiers by locality, the load each takes by
// its health, one member by weight, endpoints by hash.
//
// It owns the policy and the choice, and refuses everything else: it sees no DNS message, opens no socket, reads no
// clock and has no random source. It imports the standard library, a hash library and the packages mcs, health and
// topology only.
//
// The model is Envoy's priority load with overprovisioning, degraded hosts and panic, over Istio's failover priorities,
// with one group per answer and weighted rendezvous hashing instead of chance.
package balance
