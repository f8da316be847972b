// Package browser looks at the pages of the status address with a real browser, Debian's chromium: how long they take, whether
// they work with JavaScript and without, and what they look like.
package browser

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"sync"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
)

// program is the browser. Others of the same kind may well do, but are not what was tried.
const program = "chromium"

// patience bounds whatever a browser is asked to do. It needs about a second to start on an idle machine.
const patience = 60 * time.Second

// Installed says where the browser is, or how to get it.
func Installed() (path string, err error) {
	if path, err = exec.LookPath(program); err != nil {
		return "", fmt.Errorf("%s is not installed: apt-get install %[1]s", program)
	}
	return path, nil
}

// Browser is a running browser without a window. It begins with an empty profile, which Close removes.
type Browser struct {
	ctx     context.Context //nolint:containedctx // the library keeps its browser in a context
	release context.CancelFunc
	profile string
}

// Start starts the browser.
func Start() (*Browser, error) {
	path, err := Installed()
	if err != nil {
		return nil, err
	}
	profile, err := os.MkdirTemp("", "clusterset-dns-browser-")
	if err != nil {
		return nil, err
	}
	flags := []chromedp.ExecAllocatorOption{chromedp.ExecPath(path), chromedp.UserDataDir(profile)}
	for _, name := range []string{
		"headless", "no-sandbox", "disable-gpu", "disable-quic", "no-first-run", "no-default-browser-check", "disable-background-networking",
		"disable-component-update", "disable-sync", "disable-extensions", "disable-default-apps", "metrics-recording-only", "disable-breakpad",
		"hide-scrollbars", "disable-dev-shm-usage", "disable-renderer-backgrounding", "disable-background-timer-throttling",
	} {
		flags = append(flags, chromedp.Flag(name, true))
	}
	outer, releaseOuter := chromedp.NewExecAllocator(context.Background(), flags...)
	ctx, release := chromedp.NewContext(outer)
	b := &Browser{ctx: ctx, profile: profile, release: func() { release(); releaseOuter() }}
	if err := chromedp.Do(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("start %s: %w", path, err), b.Close())
	}
	return b, nil
}

// Close ends the browser and what it has started.
func (b *Browser) Close() error {
	ctx, cancel := context.WithTimeout(b.ctx, patience)
	defer cancel()
	err := chromedp.Cancel(ctx)
	b.release()
	// Its children may still write for a moment.
	for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		gone := os.RemoveAll(b.profile)
		if gone == nil || time.Now().After(deadline) {
			return errors.Join(err, gone)
		}
	}
}

// Tab is a page of the browser. Its methods may not be called by several goroutines.
type Tab struct {
	ctx    context.Context //nolint:containedctx // the library keeps its tab in a context
	cancel context.CancelFunc

	mu         sync.Mutex // guards complaints
	complaints []string
}

// Tab opens an empty page of a size in pixels.
func (b *Browser) Tab(width, height int64) (*Tab, error) {
	ctx, cancel := chromedp.NewContext(b.ctx)
	t := &Tab{ctx: ctx, cancel: cancel}
	if err := errors.Join(chromedp.Listen(ctx, t.hear), t.Size(width, height)); err != nil {
		cancel()
		return nil, fmt.Errorf("open a tab: %w", err)
	}
	return t, nil
}

// Close closes the page.
func (t *Tab) Close() { t.cancel() }

// hear notes what the browser complains about: errors of scripts, what the Content-Security-Policy forbids, what cannot be loaded.
func (t *Tab) hear(event any) {
	text := ""
	switch e := event.(type) {
	case *log.EventEntryAdded:
		if e.Entry.Level == "error" || e.Entry.Level == "warning" {
			text = fmt.Sprintf("%s: %s %s", e.Entry.Source, e.Entry.Text, e.Entry.URL)
		}
	case *runtime.EventExceptionThrown:
		text = "exception: " + e.ExceptionDetails.Text
		if e.ExceptionDetails.Exception != nil {
			text += " " + e.ExceptionDetails.Exception.Description
		}
	case *runtime.EventConsoleAPICalled:
		text = fmt.Sprintf("console.%s", e.Type)
		for _, arg := range e.Args {
			text += " " + string(arg.Value) + arg.Description
		}
	}
	if text == "" {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.complaints = append(t.complaints, text)
}

// Complaints returns what the browser has complained about so far, on all pages that the tab has shown.
func (t *Tab) Complaints() []string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.Clone(t.complaints)
}

// do lets the browser do something, for as long as patience.
func (t *Tab) do(steps ...chromedp.Action[chromedp.Void]) error {
	// The first use of a tab decides how long it lives, so that has no limit of its own.
	if chromedp.FromContext(t.ctx).Target == nil {
		if err := chromedp.Do(t.ctx); err != nil {
			return err
		}
	}
	ctx, cancel := context.WithTimeout(t.ctx, patience)
	defer cancel()
	return chromedp.Do(ctx, steps...)
}

// call sends a command of the protocol.
func call[P, R any](t *Tab, command cdp.Command[P, R], params P) (R, error) {
	ctx, cancel := context.WithTimeout(t.ctx, patience)
	defer cancel()
	return chromedp.Call(ctx, command, params)
}

// Open loads a page and waits until it is there with all that belongs to it.
func (t *Tab) Open(url string) error { return t.do(chromedp.Navigate(url)) }

// Size changes the size of the page, in pixels.
func (t *Tab) Size(width, height int64) error { return t.do(chromedp.EmulateViewport(width, height)) }

// Dark says which colours the reader prefers.
func (t *Tab) Dark(dark bool) error {
	value := "light"
	if dark {
		value = "dark"
	}
	_, err := call(t, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: value}}})
	return err
}

// Scripts switches JavaScript on or off, from the next page on.
func (t *Tab) Scripts(on bool) error {
	_, err := call(t, emulation.SetScriptExecutionDisabled, emulation.SetScriptExecutionDisabledParams{Value: !on})
	return err
}

// Type writes into the element that a selector (CSS) finds, as keys do.
func (t *Tab) Type(selector, text string) error {
	return t.do(chromedp.SendKeys(chromedp.CSS(selector), text))
}

// Key presses a key, wherever the focus is.
func (t *Tab) Key(key string) error { return t.do(chromedp.KeyEvent(key)) }

// Click clicks on the element that a selector finds.
func (t *Tab) Click(selector string) error { return t.do(chromedp.Click(chromedp.CSS(selector))) }

// Follow clicks on an element, and waits for the page to which that leads.
func (t *Tab) Follow(selector string) error {
	ctx, cancel := context.WithTimeout(t.ctx, patience)
	defer cancel()
	_, err := chromedp.RunResponse(ctx, chromedp.Click(chromedp.CSS(selector)))
	return err
}

// Picture takes a picture of so many pixels from the top of the page, PNG.
func (t *Tab) Picture(width, height float64) ([]byte, error) {
	yes := true
	r, err := call(t, page.CaptureScreenshot, page.CaptureScreenshotParams{
		Clip: &page.Viewport{Width: width, Height: height, Scale: 1}, CaptureBeyondViewport: &yes,
	})
	return r.Data, err
}

// Evaluate evaluates an expression of JavaScript in the page. It works too where the page itself may run no scripts.
func Evaluate[T any](t *Tab, expression string) (T, error) {
	ctx, cancel := context.WithTimeout(t.ctx, patience)
	defer cancel()
	return chromedp.Run(ctx, chromedp.Evaluate[T](expression))
}
