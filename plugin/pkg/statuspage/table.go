package statuspage

import (
	"cmp"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

// perPage is how many services a page lists. A browser lays out so many rows in a tenth of a second.
const perPage = 1000

// choice is what a reader has chosen for a table: a part of the query of the page.
type choice struct {
	query url.Values
	// sortBy is the parameter with the column, "-" before it for the other way round.
	sortBy string
	// others are parameters that the form of the table must keep, since they belong to the other one.
	others []string
}

// get returns a parameter.
func (c choice) get(name string) string { return strings.TrimSpace(c.query.Get(name)) }

// with returns the query with a parameter changed; "" removes it, and the number of the page, which it makes meaningless.
func (c choice) with(name, value string) string {
	next := url.Values{}
	for key, values := range c.query {
		if key != "page" && len(values) > 0 && values[0] != "" {
			next.Set(key, values[0])
		}
	}
	next.Del(name)
	if value != "" {
		next.Set(name, value)
	}
	return "?" + next.Encode()
}

// column is one that a table can be sorted by.
type column[T any] struct {
	key, title string
	// figures are aligned to the right.
	figures bool
	compare func(a, b T) int
}

// heading is a column as the page shows it.
type heading struct {
	Key, Title, Link string
	Order            string // ascending, descending or none, for aria-sort
	Figures          bool
}

// sorted puts rows in the order that was chosen, by the first column if none was, and returns the headings with links.
func sorted[T any](c choice, rows []T, columns []column[T]) []heading {
	key, down := strings.CutPrefix(c.get(c.sortBy), "-")
	at := slices.IndexFunc(columns, func(col column[T]) bool { return col.key == key })
	if at < 0 {
		at, down = 0, false
	}
	slices.SortStableFunc(rows, func(a, b T) int {
		by := columns[at].compare(a, b)
		if down {
			by = -by
		}
		return by
	})
	out := make([]heading, len(columns))
	for i, col := range columns {
		out[i] = heading{Key: col.key, Title: col.title, Figures: col.figures, Order: "none"}
		next := col.key
		if i == at {
			out[i].Order = "ascending"
			if down {
				out[i].Order = "descending"
			} else {
				next = "-" + col.key
			}
		}
		out[i].Link = c.with(c.sortBy, next)
	}
	return out
}

// hidden are inputs of a form that keep parameters.
type hidden struct{ Name, Value string }

// kept returns what a form must hand on: how the table is sorted, and what belongs to the other table.
func (c choice) kept() (out []hidden) {
	for _, name := range append([]string{c.sortBy}, c.others...) {
		if v := c.get(name); v != "" {
			out = append(out, hidden{name, v})
		}
	}
	return out
}

// pager leads through pages of rows.
type pager struct {
	// First to Last of Total rows that match are shown, of All.
	First, Last, Total, All int
	Previous, Next          string
	// Complete tells that all rows are here, those that do not match hidden, so that the browser can filter and sort them itself.
	Complete bool
}

// row is one that can be hidden.
type row interface {
	matches(choice) bool
	hide()
}

// paged returns the rows that match: all in one table, with the others hidden, if they fit into a page, else the page that was
// asked for.
func paged[T row](c choice, rows []T) ([]T, pager) {
	all := len(rows)
	matching := 0
	for _, r := range rows {
		if r.matches(c) {
			matching++
		} else {
			r.hide()
		}
	}
	if all <= perPage {
		return rows, pager{First: min(1, matching), Last: matching, Total: matching, All: all, Complete: true}
	}
	rows = slices.DeleteFunc(rows, func(r T) bool { return !r.matches(c) })
	pages := max(1, (matching+perPage-1)/perPage)
	page, err := strconv.Atoi(c.get("page"))
	if err != nil {
		page = 1
	}
	page = min(max(page, 1), pages)
	from := (page - 1) * perPage
	to := min(from+perPage, matching)
	p := pager{First: min(from+1, to), Last: to, Total: matching, All: all}
	if page > 1 {
		p.Previous = c.with("page", strconv.Itoa(page-1))
	}
	if page < pages {
		p.Next = c.with("page", strconv.Itoa(page+1))
	}
	return rows[from:to], p
}

// by makes an order of what a function says of a row.
func by[T any, K cmp.Ordered](of func(T) K) func(a, b T) int {
	return func(a, b T) int { return cmp.Compare(of(a), of(b)) }
}

// option is one of a select.
type option struct {
	Value, Title string
	Selected     bool
}

func options(chosen string, values ...[2]string) []option {
	out := make([]option, len(values))
	for i, v := range values {
		out[i] = option{v[0], v[1], v[0] == chosen}
	}
	return out
}
