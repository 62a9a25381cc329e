// Show what happens in a run. The server renders; this only puts it into place. Words of models are always text.

const run = document.getElementById("run");
const say = document.getElementById("say");
const source = new EventSource(run.dataset.events);
let ended = false;

function on(kind, act) {
  source.addEventListener(kind, (event) => act(JSON.parse(event.data)));
}

function isAtEnd(box) {
  return box.scrollHeight - box.scrollTop - box.clientHeight < 40;
}

on("words", ({ card, text }) => {
  const words = document.querySelector(`#card-${card} .words`);
  if (words === null) return;
  const follow = isAtEnd(words);
  words.append(document.createTextNode(text));
  if (follow) words.scrollTop = words.scrollHeight;
});

on("part", ({ id, into, html, keep, first }) => {
  const old = document.getElementById(id);
  if (old !== null && keep) return;
  // Rendered by the server, which escapes everything. A template starts no script, and the page's policy runs none.
  const template = document.createElement("template");
  template.innerHTML = html;
  const made = template.content.firstElementChild;
  if (old === null) {
    const box = document.getElementById(into);
    if (first) box.prepend(made);
    else box.append(made);
    return;
  }
  const focused = old.contains(document.activeElement) ? document.activeElement : null;
  old.replaceWith(made);
  if (focused !== null) restoreFocus(made, focused);
});

// A part that is shown anew must not throw the keyboard back to the top of the page.
function restoreFocus(made, focused) {
  const selector = focused.id ? `#${CSS.escape(focused.id)}` : focused.className ? `.${CSS.escape(focused.className)}` : focused.localName;
  const again = made.querySelector(selector);
  (again ?? document.getElementById("main")).focus({ preventScroll: true });
}

on("say", ({ text }) => {
  say.textContent = text;
});

on("reload", () => {
  source.close();
  location.reload();
});

on("end", () => {
  ended = true;
  source.close();
});

source.addEventListener("open", () => {
  if (say.dataset.lost) {
    say.textContent = "Connected again.";
    delete say.dataset.lost;
  }
});

source.addEventListener("error", () => {
  if (ended) return;
  say.dataset.lost = "yes";
  say.textContent =
    source.readyState === EventSource.CLOSED
      ? "The server does not know this run any more. Load the page again."
      : "The connection is lost. This page connects again by itself, and shows what it has missed.";
});

const shownAt = performance.now();
let base = null;
setInterval(() => {
  const clock = document.querySelector("[data-seconds]");
  if (clock === null) {
    base = null;
    return;
  }
  if (base === null || base.from !== clock.dataset.seconds) {
    base = { from: clock.dataset.seconds, at: base === null ? shownAt : performance.now() };
  }
  clock.textContent = (Number(base.from) + (performance.now() - base.at) / 1000).toFixed(1);
}, 100);
