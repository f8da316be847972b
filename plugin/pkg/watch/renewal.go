package watch

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Times of the renewal of credentials.
const (
	lookEvery     = 5 * time.Second  // compare files with what they were
	renewFirst    = time.Second      // after a refusal or a failure wait so long, and twice as long each time
	renewAtMost   = time.Minute      // but not longer
	renewedBefore = 10 * time.Second // a plugin is asked again so long before its credentials end, or a tenth of their life
)

// renewal keeps the credentials of an access current: it looks at the files from which they come and asks the plugin that
// gives them. New ones are used when they have been tried; until then, and if they do not work, the old ones go on. Only
// its own goroutine uses it.
type renewal struct {
	*access
	// got is what the plugin gave last, asked by which plugin, and due when it must be asked again.
	got   credentials
	asked digest
	due   time.Time
	ask   patience // for asking without being due

	// refused is what has been tried in vain.
	refused digest
	retry   patience
	// told is the last thing told to the observer, and moved when new credentials came into use.
	told  string
	moved time.Time
}

func newRenewal(a *access) *renewal { return &renewal{access: a} }

// patience waits longer each time.
type patience struct {
	until time.Time
	wait  time.Duration
}

func (p *patience) over(now time.Time) bool { return !now.Before(p.until) }

// more makes the next wait longer, unless nothing happened for long.
func (p *patience) more(now time.Time) {
	p.wait = min(max(2*p.wait, renewFirst), renewAtMost)
	if now.Sub(p.until) > 2*renewAtMost {
		p.wait = renewFirst
	}
	p.until = now.Add(p.wait)
}

// run looks at once, then now and then, and when the server has rejected the credentials.
func (r *renewal) run(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		rejected := false
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		case <-r.rejected:
			rejected = true
		}
		used, err := r.search(ctx, rejected)
		if ctx.Err() != nil {
			return
		}
		r.tell(used, err)
		timer.Reset(r.pause(time.Now()))
	}
}

// pause is how long nothing has to be done unless the server rejects the credentials.
func (r *renewal) pause(now time.Time) time.Duration {
	next := now.Add(r.look)
	if !r.due.IsZero() && r.due.Before(next) {
		next = r.due
	}
	return max(next.Sub(now), 10*time.Millisecond)
}

// errPending says that nothing new is known.
var errPending = errors.New("pending")

// search finds out whether there is something new, tries it and uses it. The error is why the old goes on although there
// should be something new; errPending stands for the one before.
func (r *renewal) search(ctx context.Context, rejected bool) (used bool, err error) {
	if time.Since(r.moved) > time.Minute {
		r.previous.Store(nil) // nobody speaks of it any more
	}
	next := r.latest()
	if next.changed() {
		if next, err = r.read(); err != nil {
			return false, err
		}
	}
	got, err := r.credentials(ctx, next, rejected)
	if err != nil {
		return false, err
	}
	whole := next
	whole.config = got.in(next.config)
	identity, err := whole.identity()
	if err != nil {
		return false, err
	}
	current := r.current.Load()
	if current != nil && current.identity == identity {
		current.setExpiry(whole, got.expiry)
		r.refused = digest{}
		r.use(next)
		return false, nil
	}
	if current != nil && identity == r.refused && !rejected && !r.retry.over(time.Now()) {
		return false, errPending
	}
	candidate, err := newRoute(whole, got.expiry)
	if err != nil {
		return false, err
	}
	if current != nil {
		if err := r.prove(ctx, candidate, current); err != nil {
			return false, err
		}
	}
	r.refused, r.moved = digest{}, time.Now()
	r.use(next)
	r.move(candidate)
	return current != nil, nil
}

// prove tries a candidate. One that has been refused before is tried after ever longer pauses.
func (r *renewal) prove(ctx context.Context, candidate, current *route) error {
	if candidate.identity != r.refused {
		r.refused, r.retry = candidate.identity, patience{}
	}
	err := r.try(ctx, candidate, current)
	if err != nil {
		r.retry.more(time.Now())
		candidate.retire(false)
	}
	return err
}

// try asks over a new route what each watcher asks for its proof of life. It is refused when it fails where the old route
// works.
func (r *renewal) try(ctx context.Context, next, current *route) error {
	for _, w := range r.watchers() {
		err := w.try(over(ctx, next))
		if err == nil || problemOf(err) == NotServed || ctx.Err() != nil {
			continue
		}
		if was := w.try(over(ctx, current)); was == nil || problemOf(was) == NotServed {
			return fmt.Errorf("tried in vain: %w", err)
		}
	}
	return ctx.Err()
}

// credentials returns what the plugin gives, asked anew if that is due, if the plugin is another, or if the server has
// rejected what it gave. Without a plugin there are none.
func (r *renewal) credentials(ctx context.Context, s settings, rejected bool) (credentials, error) {
	if s.plugin == nil {
		r.asked, r.due = digest{}, time.Time{}
		return credentials{}, nil
	}
	plugin, err := digestOf(s.plugin, s.config.Host, s.config.CAData)
	if err != nil {
		return credentials{}, err
	}
	now := time.Now()
	other := plugin != r.asked
	due := !r.due.IsZero() && !now.Before(r.due)
	switch {
	case other:
		r.got, r.ask = credentials{}, patience{}
	case rejected && r.ask.over(now):
		r.ask.more(now)
	case !due:
		if r.got.equal(credentials{}) {
			return credentials{}, errPending
		}
		return r.got, nil
	}
	got, err := runPlugin(ctx, s)
	r.asked = plugin
	if err != nil {
		r.ask.more(now)
		r.due = r.ask.until
		r.fail(fmt.Errorf("%w: %w", errNoCredentials, err))
		return credentials{}, err
	}
	r.schedule(got, other || !got.equal(r.got), now)
	r.got = got
	return got, nil
}

// schedule finds when the plugin must be asked again: a little before its credentials end, or, where it then gives the same
// ones again, when they have ended.
func (r *renewal) schedule(got credentials, isNew bool, now time.Time) {
	life := got.expiry.Sub(now)
	switch {
	case got.expiry.IsZero():
		r.due = time.Time{}
	case life <= 0:
		r.ask.more(now)
		r.due = r.ask.until
	case isNew:
		r.due = got.expiry.Add(-min(life/10, renewedBefore))
	default:
		r.due = got.expiry
	}
}

// tell tells the observer of one of the watchers that new credentials are used, or what is wrong with them, once.
func (r *renewal) tell(used bool, err error) {
	if errors.Is(err, errPending) {
		return
	}
	text := ""
	if err != nil {
		err = r.conceal(err)
		text = err.Error()
	}
	was := r.told
	r.told = text
	watchers := r.watchers()
	if len(watchers) == 0 || !used && (err == nil || text == was) {
		return
	}
	spec := watchers[0].spec
	spec.Observer.Renewed(spec.Name(), r.current.Load().isInsecure(), err)
}
