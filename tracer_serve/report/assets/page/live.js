// The dashboard's numbers: asked for again and again, put on the page as text, drawn only where they changed.
let facts = null;
const EVERY_MS = 3000;
const when = (iso) => (iso ? iso.slice(0, 16).replace("T", " ") : "-");
const plural = (n, word) => `${count(n)} ${word}${n === 1 ? "" : "s"}`;
/** What the YAML says, unrounded but for what binary fractions add. */
const exact = (x) => `${Number((100 * x).toPrecision(6))} %`;
const short = (x) => Number(x).toLocaleString("en", { maximumSignificantDigits: 3 });
const ms = (x) => (x === null ? "-" : x < 0.01 ? "under 0.01 ms" : x < 1000 ? `${short(x)} ms` : `${short(x / 1000)} s`);

/** Put text into an element, only if it differs: screen readers hear of changes alone. */
function put(id, said) {
  const place = $(id);
  if (place.textContent !== said) place.textContent = said;
}

function money(value, currency) {
  const shape = { style: "currency", currency, maximumSignificantDigits: 3 };
  try { return value.toLocaleString("en", shape); } catch { return `${short(value)} ${currency}`; }
}

/** How far a task is from its first version. */
const awaited = ({ rows, needed }) => `${count(rows)} of about ${count(needed)} traces`;

/** What the task does, in the pill beside its name. */
function state({ status, version, gate, mode }) {
  if (status !== "ok") return "needs a look";
  if (!version || gate.reason === "no_certificate") return "collecting traces";
  return mode === "observe" ? "observing" : gate.open ? "serving" : "gate closed";
}

function headline({ version, gate, mode, traffic }) {
  if (!version) return gate.repair ? `No version yet: ${awaited(gate.repair)}; everything goes to the teacher` : "No version yet: everything goes to the teacher, and is learnt from";
  if (gate.reason === "no_certificate") return "Nothing is certified yet: everything goes to the teacher";
  if (!gate.open) return "The gate is closed: everything goes to the teacher";
  const would = traffic && traffic.held_back;
  if (mode === "observe") return would && would.texts ? `Only observing: ${percent(would.share)} of today's requests would have been answered without the teacher`
    : "Only observing: everything goes to the teacher";
  const today = traffic && traffic.today;
  return today && today.requests ? `${percent(today.coverage)} of today's requests were answered without the teacher`
    : `${percent(version.coverage)} of the traffic is certified to need no teacher`;
}

function promised({ version, gate, mode, promise }) {
  if (!version || gate.reason === "no_certificate") return "A version serves once the gate has shown that it agrees with the teacher often enough.";
  const broken = gate.reason === "promise_changed" ? `The YAML promises more than version ${version.number} was certified for` : `The certificate of version ${version.number} no longer holds`;
  if (!gate.open) return `${broken}; the teacher's answers calibrate the next one. ${gate.repair ? gate.repair.words : ""}`;
  if (mode === "observe") return "The version's answers are compared with the teacher's, and given to nobody.";
  return `${version.promise} ${promise.audits ? "Audits watch it live." : "No audit has come in yet."}${version.warning ? ` ${version.warning}` : ""}`;
}

/** What the tile's share is of: the texts that came to this version, where the headline speaks of today's. */
function counted({ version, gate, mode }, live) {
  if (!version || !version.certified) return "nothing is certified";
  const share = `${gate.open ? "" : "was "}certified: ${percent(version.coverage)}`;
  const seen = live && live.requests ? `${count(live.handled)} of ${plural(live.requests, "request")}` : "no request yet";
  return `version ${version.number}: ${seen}${gate.open && mode !== "observe" ? "" : ", none now"}; ${share}`;
}

/** What the version would have answered where mode or gate held it back, beside what the teacher said. */
const held = (recent) => (recent && recent.held_back.rows
  ? `${count(recent.held_back.agreed)} of the latest ${plural(recent.held_back.rows, "answer")} held back ${recent.held_back.agreed === 1 ? "agrees" : "agree"} with the teacher's` : "");

function tiles({ version, gate, mode, traffic, promise, recent, versions }) {
  const serving = versions.find((v) => v.serves);
  const live = serving && serving.live;
  const would = mode === "observe" && traffic && traffic.held_back.texts ? traffic.held_back : null;
  put("coverage-name", would ? "Would be answered without the teacher" : "Answered without the teacher");
  put("coverage", would ? percent(would.share) : live && live.requests ? percent(live.coverage) : gate.open && mode !== "observe" ? "-" : "0 %");
  put("coverage-note", would ? `${count(would.texts)} of today's ${plural(traffic.today.requests, "request")}; certified: ${percent(version.coverage)}` : counted({ version, gate, mode }, live));
  const shadow = held(recent);
  put("agreement", promise && promise.audits ? percent(promise.agreement) : shadow ? percent(recent.held_back.agreed / recent.held_back.rows) : "-");
  put("agreement-note", promise && promise.audits
    ? `${count(promise.agreements)} of ${plural(promise.audits, "audit")}; at least ${atLeast(promise.lower_bound)} at any time, with ${exact(promise.confidence)} confidence`
    : shadow ? `${shadow}; no audit yet` : version ? "no audit yet" : "nothing to audit");
  const cash = traffic && traffic.money;
  if (would) {
    put("saved-name", would.cost === null ? "Teacher calls it would have saved today" : "Would have saved today");
    put("saved", would.cost === null ? count(would.texts) : money(would.cost, would.currency));
    put("saved-note", "before audits; mode enforce saves it");
  } else {
    put("saved-name", cash ? "Saved today" : "Teacher calls saved today");
    put("saved", !traffic ? "-" : cash ? money(cash.saved, cash.currency) : count(traffic.today.teacher_calls_saved));
    put("saved-note", cash ? `net of ${money(cash.audits, cash.currency)} for audits; ${money(cash.spent, cash.currency)} spent on deferred texts` : traffic ? `net of ${plural(traffic.today.audits, "audit")}; the cost of a call is not known` : "");
  }
  const { handled, deferred } = recent ? recent.latency_ms : { handled: { p50: null }, deferred: { p50: null } };
  put("latency-name", `Median time${handled.p50 !== null ? " of a handled text" : deferred.p50 !== null ? " of a deferred text" : " to an answer"}`);
  put("latency", handled.p50 === null ? ms(deferred.p50) : ms(handled.p50));
  const tail = (name, part) => (part.p50 === null ? [] : [`${name} ${ms(part.p50)}, p99 ${ms(part.p99)}`]);
  put("latency-note", [...tail("handled", handled), ...tail("deferred", deferred), ...(deferred.p50 !== null && deferred.p50 < 1 ? ["answers from a cache count"] : [])].join("; ") || "no request yet");
}

function countdown({ version, gate, refit }) {
  const waits = !version && gate.repair && !refit;
  $("first").hidden = !waits;
  if (!waits) return;
  put("first-words", gate.repair.words);
  $("first-progress").value = Math.min(1, gate.repair.rows / Math.max(1, gate.repair.needed));
}

function watched({ version, gate, mode, monitor, promise, recent, traffic, agreement }) {
  const alarm = monitor ? monitor.alarm_at : 20;
  const share = monitor ? Math.min(1, Math.max(0, Math.log(Math.max(monitor.evidence, 1)) / Math.log(alarm))) : 0;
  $("evidence").value = gate.reason === "drift" ? 1 : share;
  put("evidence-now", monitor ? short(monitor.evidence) : "-");
  put("evidence-alarm", monitor ? short(alarm) : "-");
  put("audits", promise ? count(promise.audits) : "-");
  const since = agreement && agreement.proved_since;
  put("proved", promise && promise.proved_live_at ? `after ${plural(promise.proved_live_at, "audit")}${since ? `, by ${when(since)}` : ""}` : "not yet");
  put("audits-today", traffic ? count(traffic.today.audits) : "-");
  put("audits-cost", traffic && traffic.money ? money(traffic.money.audits, traffic.money.currency) : "-");
  put("audit-rate", monitor ? percent(monitor.audit_rate) : "-");
  const shadow = held(recent);
  const verdict = !version || gate.reason === "no_certificate" ? "Nothing is promised yet, so nothing is watched."
    : gate.reason === "drift" ? "No. The audits showed that agreement fell, and the gate closed at once."
      : gate.reason === "promise_changed" ? "The YAML promises more than this version was certified for, so nothing is handled."
        : !gate.open ? `Nothing is handled, so nothing can break it: ${gate.reason.replaceAll("_", " ")}.`
        : mode === "observe" ? "Nothing is handled, so nothing can break it: mode observe."
        : !promise.audits ? "No audit has come in yet, so nothing speaks for or against it."
        : share >= 0.5 ? "Doubtful: the audits disagree more often than they should. More of them are drawn now."
          : promise.agreement < promise.required ? `Too early to tell: less than ${exact(promise.required)} of the audits agree, which chance explains while they are few.`
            : `Yes, as far as the audits tell: at least ${exact(promise.required)} have to agree.`;
  put("verdict", shadow ? `${verdict} Meanwhile ${shadow}.` : verdict);
  const forms = promise ? promise.forms : [];
  listed("forms-watched", forms.length > 1 || forms.some((one) => one.suspended) ? forms : [], (one) => element("li",
    `${one.form}: ${count(one.agreements)} of ${plural(one.audits, "audit")} agree${one.suspended ? "; suspended, as they disagree too often: remove its same_as" : ""}`));
}

function show() {
  const doing = state(facts);
  $("state").className = `pill ${doing === "needs a look" ? "bad" : doing === "serving" ? "good" : "quiet"}`;
  put("state", doing);
  $("mode").hidden = facts.mode === "enforce" || doing === "observing";
  put("mode", `mode ${facts.mode}`);
  put("updated", `${when(facts.time)} UTC`);
  put("headline", headline(facts));
  put("promise-words", promised(facts));
  listed("problems", facts.problems, (problem) => element("li", problem));
  countdown(facts);
  tiles(facts);
  watched(facts);
  agreed(facts);
  if (facts.traffic) hours(facts.traffic);
  if (facts.recent) reasons(facts.recent);
  tables(facts);
  unrecognised(facts);
  operator(facts);
}

/** Fill a list or table body, only if what it shows has changed. */
function listed(id, items, made) {
  const place = $(id);
  const key = JSON.stringify(items);
  if (place.dataset.shown === key) return;
  place.dataset.shown = key;
  place.replaceChildren(...items.map(made));
  if (place.tagName === "TBODY") named(place.closest("table"));
}

async function refresh() {
  try {
    const answer = await fetch("status.json", { cache: "no-store", signal: AbortSignal.timeout(10000) });
    if (!answer.ok) throw new Error(answer.status === 401 ? "The server wants an API key: load the page again and give it as the password." : `The server answered ${answer.status}.`);
    facts = await answer.json();
    show();
  } catch (error) {
    $("state").className = "pill bad";
    put("state", "no answer");
    const since = facts ? ` These are the numbers of ${when(facts.time)} UTC.` : "";
    listed("problems", [`${error.name === "Error" ? error.message : "The server does not answer."}${since}`], (problem) => element("li", problem));
  }
  document.documentElement.dataset.ready = "true";
}
