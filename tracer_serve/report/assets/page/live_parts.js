// The dashboard's charts and tables.
let drawnHours = null;
let drawnReasons = null;
let drawnAgreement = null;

function hours(traffic) {
  const { today } = traffic;
  put("today", `Today (UTC): ${plural(today.requests, "request")}, ${count(today.handled)} handled, ${count(today.deferred)} deferred${today.degraded ? `, ${count(today.degraded)} degraded` : ""}, ${plural(today.audits, "audit")}.`);
  listed("hours-rows", traffic.hours, (hour) => row([head(when(hour.at)), ...["handled", "deferred", "degraded"].map((kind) => number(hour[kind]))]));
  if ($("hours-chart").dataset.shown === $("hours-rows").dataset.shown) return;
  $("hours-chart").dataset.shown = $("hours-rows").dataset.shown;
  const silent = traffic.hours.every((hour) => !hour.handled && !hour.deferred && !hour.degraded);
  $("hours").hidden = silent;
  if (drawnHours) { drawnHours.draw(); return; }
  if (silent) return;
  const bars = (name, ink) => ({ name, type: "bar", stack: "all", barMaxWidth: 26, itemStyle: { color: colour(ink) }, emphasis: { focus: "series" },
    data: facts.traffic.hours.map((hour) => hour[name]) });
  drawnHours = chart("hours-chart", () => ({
    grid: { left: 48, right: 8, top: 34, bottom: 24 },
    legend: { top: 0, right: 0, icon: "roundRect", itemWidth: 12, itemHeight: 12, textStyle: text() },
    tooltip: { ...common().tooltip, trigger: "axis", axisPointer: { type: "shadow" },
      formatter: ([{ dataIndex: i }]) => {
        const hour = facts.traffic.hours[i];
        return tip(`${when(hour.at)} UTC`, [`${count(hour.handled)} handled`, `${count(hour.deferred)} deferred`, ...(hour.degraded ? [`${count(hour.degraded)} degraded`] : [])]);
      } },
    xAxis: axis(undefined, { type: "category", data: facts.traffic.hours.map((hour) => hour.at.slice(11, 16)), axisTick: { show: false }, splitLine: { show: false }, axisLabel: { ...text(), hideOverlap: true } }),
    yAxis: axis(undefined, { type: "value", minInterval: 1, splitNumber: 3, axisLabel: { ...text(), formatter: count } }),
    series: [bars("handled", "handled"), bars("deferred", "deferred"), ...(facts.traffic.hours.some((hour) => hour.degraded) ? [bars("degraded", "error")] : [])],
  }));
}

/** Agreement of the audits so far and its anytime bound, over the life of the version that serves. */
function agreed({ agreement, promise }) {
  const points = agreement ? agreement.points : [];
  listed("agreement-rows", points, (p) => row([head(when(p.at)), number(p.audits), cell(percent(p.agreement), "n"), cell(atLeast(p.lower_bound), "n")]));
  $("agreement-figure").hidden = !points.length;
  if (!points.length) return;
  const key = `${$("agreement-rows").dataset.shown}${promise.required}`;
  if ($("agreement-chart").dataset.shown === key) return;
  $("agreement-chart").dataset.shown = key;
  if (drawnAgreement) { drawnAgreement.draw(); return; }
  const line = (name, field, ink, type) => ({ name, type: "line", color: colour(ink), symbolSize: 6, lineStyle: { type, width: 2 }, data: facts.agreement.points.map((p) => p[field]) });
  drawnAgreement = chart("agreement-chart", () => ({
    grid: { left: 48, right: 12, top: 32, bottom: 24 },
    legend: { top: 0, right: 0, textStyle: text() },
    tooltip: { ...common().tooltip, trigger: "axis", formatter: ([{ dataIndex: i }]) => {
      const p = facts.agreement.points[i];
      return tip(`${when(p.at)} UTC`, [`${count(p.agreements)} of ${plural(p.audits, "audit")} agree`, `at least ${atLeast(p.lower_bound)} at any time`]);
    } },
    xAxis: axis(undefined, { type: "category", data: facts.agreement.points.map((p) => (facts.agreement.by === "hour" ? p.at.slice(11, 16) : p.at.slice(5, 10))), axisLabel: { ...text(), hideOverlap: true } }),
    yAxis: axis(undefined, { type: "value", max: 1, scale: true, splitNumber: 3, axisLabel: { ...text(), formatter: (x) => percent(x, 0) } }),
    series: [{ ...line("agreement", "agreement", "handled", "solid"), markLine: { symbol: "none", silent: true, lineStyle: { color: colour("error"), type: "dashed" },
      label: { formatter: `alpha ${facts.promise.required}`, position: "insideStartBottom", color: colour("error") }, data: [{ yAxis: facts.promise.required }] } },
    line("anytime bound", "lower_bound", "ink-soft", "dotted")],
  }));
}

function reasons(recent) {
  const asked = recent.teacher.asked;
  put("why-note", asked ? `${plural(asked, "time")} among the latest ${plural(recent.rows, "request")}, since ${when(recent.since)} UTC.` : "The teacher was not asked lately.");
  const key = JSON.stringify(recent.reasons);
  if ($("reasons-chart").dataset.shown === key) return;
  $("reasons-chart").dataset.shown = key;
  $("reasons-chart").hidden = !recent.reasons.length;
  $("reasons-chart").style.height = `${2.4 * recent.reasons.length + 1.5}rem`;
  if (drawnReasons) { drawnReasons.draw(); return; }
  if (!recent.reasons.length) return;
  drawnReasons = chart("reasons-chart", () => {
    const rows = facts.recent.reasons;
    return {
      grid: { left: 8, right: 48, top: 4, bottom: 8, containLabel: true },
      tooltip: { ...common().tooltip, formatter: ({ dataIndex: i }) => tip(rows[i].words, [`${plural(rows[i].rows, "request")}`]) },
      xAxis: { type: "value", show: false },
      yAxis: axis(undefined, { type: "category", inverse: true, data: rows.map((one) => one.words), axisTick: { show: false }, axisLine: { show: false }, splitLine: { show: false },
        axisLabel: { ...text(), color: colour("ink"), width: Math.max(110, $("reasons-chart").clientWidth * 0.4), overflow: "break" } }),
      series: [{ type: "bar", barMaxWidth: 20, data: rows.map((one) => one.rows), itemStyle: { color: colour("deferred"), borderRadius: 4 },
        label: { show: true, position: "right", color: colour("ink"), formatter: ({ value }) => count(value) } }],
    };
  });
}

/** Calls that were forwarded because they are of no known form, by reason, with what to do. */
function unrecognised({ forwarded }) {
  $("forwarded").hidden = !forwarded.length;
  const total = forwarded.reduce((sum, one) => sum + one.calls, 0);
  put("forwarded-words", `${plural(total, "call")} went to the teacher's endpoint as ${total === 1 ? "it" : "they"} came, of ${plural(forwarded.length, "form")}; nothing of ${total === 1 ? "it" : "them"} was answered here.`);
  listed("forwarded-rows", forwarded, (one) => row([head(one.reason.replaceAll("_", " ")), number(one.calls), cell(one.detail), cell(Object.keys(one.labels).join(", ") || "-"), cell(one.advice), cell(one.form, "form")]));
}

function cell(said, className) { return element("td", said, className); }
function number(n) { return cell(n === null ? "-" : count(n), "n"); }
function head(said) {
  const made = element("th", said);
  made.scope = "row";
  return made;
}
function row(cells) {
  const made = element("tr");
  made.append(...cells);
  return made;
}

function versionRow(v) {
  const name = head(`${v.number}`);
  if (v.pill) name.append(" ", element("span", v.pill, `pill ${v.pill === "serves" ? "handled" : "quiet"}`));
  const report = cell(v.report ? undefined : "-");
  if (v.report) {
    const link = element("a", "open");
    link.href = `versions/${v.number}/report.html`;
    link.setAttribute("aria-label", `Report of version ${v.number}`);
    const links = element("span");
    links.append(link);
    if (v.before) {
      const beside = element("a", `beside ${v.before}`);
      beside.href = `versions/compare?a=${v.before}&b=${v.number}`;
      links.append(" ", beside);
    }
    report.append(links);
  }
  const finding = v.certified ? `certified, ${v.basis}${v.proved_live_at ? ", proved live" : ""}` : `not certified: ${v.reason}`;
  return row([name, cell(when(v.created)), number(v.traces), cell(v.model || "-", "label"), cell(finding), cell(v.alpha === null ? "-" : exact(v.alpha), "n"), cell(percent(v.coverage), "n"),
    cell(v.live.requests ? percent(v.live.coverage) : "-", "n"), cell(v.live.audits ? `${percent(v.live.agreement)} of ${count(v.live.audits)}` : "-", "n"), report]);
}

function segmentRow(one) {
  return row([head(one.segment), number(one.rows), number(one.handled), number(one.agreements), cell(atLeast(one.lower_bound), "n"), cell(one.finding), number(one.rows_needed || null)]);
}

function labelRow(label) {
  return row([head(inWords(label.label)), number(label.rows), number(label.handled), number(label.right), cell(percent(label.recall), "n"), cell(`${percent(label.low)} to ${percent(label.high)}`, "n"),
    cell(label.required === null ? "-" : exact(label.required), "n"), cell(label.live_rows ? `${count(label.live_kept)} of ${count(label.live_rows)}` : "-", "n")]);
}

function tables({ gate, mode, labels, segments, versions, refits, refit, last_refit: last, refit_requested: requested, recent, breakers, budget, waiting }) {
  const current = !gate.open ? "gate closed" : mode === "observe" ? "observes" : "serves";
  const reported = versions.filter((v) => v.report).map((v) => v.number);
  listed("versions-rows", versions.map((v) => ({ ...v, before: reported.find((n) => n < v.number), pill: !v.serves ? (waiting && waiting.version === v.number ? "waits for approval" : "") : v.certified ? current : "loaded" })), versionRow);
  listed("labels-rows", labels, labelRow);
  $("labels").hidden = !labels.length;
  listed("segments-rows", segments, segmentRow);
  $("segments").hidden = !segments.length;
  const fields = recent ? recent.fields : [];
  listed("fields-rows", fields, (one) => row([head(one.field), number(one.rows), cell(percent(one.agreed / one.rows), "n")]));
  $("fields").hidden = !fields.length;
  $("versions-none").hidden = versions.length > 0;
  listed("refits-rows", refits, (r) => row([cell(when(r.started)), cell(r.reason.replaceAll("_", " ")),
    cell(r.outcome ? `${r.outcome}${r.version ? `, version ${r.version}` : ""}` : "under way")]));
  $("refits-none").hidden = refits.length > 0;
  $("refit-progress").hidden = !refit;
  if (refit) $("refit-progress").value = refit.total ? refit.done / refit.total : 0;
  put("refit-words", refit ? `A refit is under way: ${refit.stage}, ${refit.done} of ${refit.total}${refit.left_s ? `; about ${refit.left_s < 90 ? plural(Math.ceil(refit.left_s), "second") : plural(Math.round(refit.left_s / 60), "minute")} left` : ""}.` : requested ? "A refit was asked for and starts within seconds."
    : last && !["certified", "abstained", "stopped"].includes(last.outcome) ? `The last refit (${last.trigger.replaceAll("_", " ")}) came to nothing: ${last.message}.`
    : versions.length ? "Certified is the share the gate allows, handled live the share of the requests that came while the version was the current one." : "");
  const failing = recent && recent.teacher.error_rate;
  put("teacher-words", !recent || !recent.teacher.asked ? "It was not asked lately." : failing ? `It failed on ${count(recent.teacher.failed)} of its latest ${plural(recent.teacher.asked, "question")}.` : `Answered: ${recent.teacher.asked === 1 ? "its latest question" : `all of its latest ${plural(recent.teacher.asked, "question")}`}.`);
  const lines = [["error rate", recent && recent.teacher.asked ? percent(failing) : "-"], ...(recent ? Object.entries(recent.teacher.errors).map(([why, n]) => [why.replaceAll("_", " "), count(n)]) : []),
    ...(budget ? [["spent of today's budget", `${money(budget.spent, budget.currency)} of ${money(budget.per_day, budget.currency)}`]] : []),
    ...breakers.map(({ endpoint, state }) => [`circuit to ${endpoint}`, state.replace("_", " ")])];
  listed("teacher-facts", lines, ([name, value]) => {
    const made = element("div");
    made.append(element("dt", name), element("dd", value));
    return made;
  });
}
