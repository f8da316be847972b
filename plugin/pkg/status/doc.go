// Package status is the language in which a server tells what it knows and why it answers as it does: the JSON documents of
// the status address, read by clustersetctl and by the page.
//
// It owns the words and their versions, and refuses to know how any of it is found out. It imports the standard library only.
package status
