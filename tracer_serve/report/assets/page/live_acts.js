// What a person can do here: have a text explained, refit, roll back. The admin key is nowhere but in its field.
async function send(path, body, key) {
  const headers = { "content-type": "application/json" };
  if (key) headers.authorization = `Bearer ${key}`;
  const answer = await fetch(path, { method: "POST", headers, body: JSON.stringify(body) });
  const said = await answer.json();
  if (!answer.ok) throw new Error(said.error.message);
  return said;
}

function bars(items, name) {
  const made = element("div", undefined, "bars");
  for (const item of items) {
    const bar = element("progress");
    bar.max = 1;
    bar.value = item.prob;
    bar.setAttribute("aria-hidden", "true");
    made.append(element("span", name(item)), bar, element("span", percent(item.prob)));
  }
  return made;
}

function part(title, content) {
  const made = element("div");
  made.append(element("h3", title), content);
  return made;
}

/** Two numbers with as many digits as tell them apart. */
function apart(...pair) {
  const shown = (digits) => pair.map((x) => x.toLocaleString("en", { maximumSignificantDigits: digits }));
  let digits = 3;
  while (digits < 9 && pair[0] !== pair[1] && new Set(shown(digits)).size === 1) digits += 1;
  return shown(digits);
}

function reading(found) {
  if (found.score === null) return `It would go to the teacher: ${found.words}.`;
  const [own, least] = found.threshold === null ? [short(found.score)] : apart(found.score, found.threshold);
  const score = `score ${own}`;
  if (found.decision === "handled") return `It would be answered here: ${score}${found.threshold === null ? ", every score is certified" : `, certified from ${least}`}.`;
  if (found.reason === "below_threshold") return `It would go to the teacher: ${score}, ${found.score === found.threshold ? "a hair under the threshold" : `certified only from ${least}`}.`;
  return `It would go to the teacher: ${found.words} (${score}).`;
}

function explanation(found) {
  const card = element("div", undefined, "answer");
  const title = element("p");
  title.append(element("span", found.decision, `pill ${found.decision}`), " ", element("strong", found.label === null ? "the teacher decides" : inWords(found.label)),
    ...(found.runner_up === null ? [] : [element("span", ` rather than ${inWords(found.runner_up)}`, "soft")]));
  card.append(title, element("p", reading(found)));
  if (found.labels.length) card.append(part("The likeliest labels", bars(found.labels, (item) => inWords(item.label))));
  if (found.members.length) card.append(part("What each part of the model says", bars(found.members, (item) => `${item.member}: ${inWords(item.label)}`)));
  if (found.nearest.length) {
    const list = element("ul", undefined, "evidence");
    list.append(...found.nearest.map((near) => {
      const item = element("li", "“");
      item.append(element("bdi", near.text), "” ", element("b", inWords(near.label)), `, cosine ${near.cosine.toFixed(2)}`);
      return item;
    }));
    card.append(part("The nearest traces, and what the teacher said", list));
  }
  return card;
}

$("try-form").addEventListener("submit", async (event) => {
  event.preventDefault();
  const second = $("try-second");
  const place = $("try-result");
  try {
    const found = await send("v1/explain", { input: second ? [$("try-text").value, second.value] : $("try-text").value });
    place.replaceChildren(explanation(found));
  } catch (error) {
    place.replaceChildren(element("p", error.message, "failed"));
  }
});
$("try-text").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) $("try-form").requestSubmit();
});

let waits = null;
function operator({ admin, versions, waiting }) {
  waits = waiting && waiting.version;
  $("approve").hidden = waits === null;
  put("approve", `Approve version ${waits}`);
  $("operate-open").hidden = !admin;
  $("operate-closed").hidden = admin;
  const chosen = $("rollback-to").value;
  const others = versions.filter((v) => !v.serves).map((v) => [v.number, v.certified]);
  listed("rollback-to", others, ([n, certified]) => {
    const option = element("option", certified ? `${n}` : `${n}, not certified`);
    option.value = n;
    option.selected = `${n}` === chosen;
    return option;
  });
  $("rollback").disabled = !others.length;
}

async function act(path, body, done) {
  const said = $("operate-said");
  if (!$("key").value) {
    said.className = "failed";
    put("operate-said", "Type the admin key first.");
    $("key").focus();
    return;
  }
  try {
    const answer = await send(path, body, $("key").value);
    said.className = "said";
    put("operate-said", done(answer));
    refresh();
  } catch (error) {
    said.className = "failed";
    put("operate-said", error.message);
  }
}

$("refit").addEventListener("click", () => act("admin/refit", {}, () => "A refit was asked for; it starts within seconds."));
$("approve").addEventListener("click", () => act("admin/approve", { version: waits }, (answer) => `Version ${answer.version} serves within a second.`));
$("rollback").addEventListener("click", () => act("admin/rollback", { version: Number($("rollback-to").value) }, (answer) => `Version ${answer.version} serves within a second.`));

async function follow() {
  if (!document.hidden) await refresh();
  setTimeout(follow, EVERY_MS);
}
document.addEventListener("visibilitychange", () => { if (!document.hidden) refresh(); });
follow();
