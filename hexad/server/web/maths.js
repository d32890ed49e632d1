// TeX's formulas to MathML, which browsers draw themselves: the part of TeX that models write. A formula with anything
// else in it stays as it was written, for half a formula says something else. It knows no markdown.

const XML = "http://www.w3.org/1998/Math/MathML";
const [LONGEST, DEEPEST] = [3000, 30];

function m(tag, attributes, ...children) {
  const element = document.createElementNS(XML, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

const pairs = (text) => new Map(text.trim().split(/\s+/).map((pair) => pair.split("=")));

const LETTERS = pairs(`alpha=α beta=β gamma=γ delta=δ epsilon=ϵ varepsilon=ε zeta=ζ eta=η theta=θ vartheta=ϑ iota=ι
  kappa=κ lambda=λ mu=μ nu=ν xi=ξ pi=π rho=ρ sigma=σ tau=τ upsilon=υ phi=ϕ varphi=φ chi=χ psi=ψ omega=ω Gamma=Γ Delta=Δ
  Theta=Θ Lambda=Λ Xi=Ξ Pi=Π Sigma=Σ Phi=Φ Psi=Ψ Omega=Ω infty=∞ partial=∂ nabla=∇ ell=ℓ hbar=ℏ emptyset=∅ varnothing=∅
  ldots=… dots=… cdots=⋯ vdots=⋮ ddots=⋱ prime=′ $=$ %=% #=# &=& _=_`);
const SIGNS = pairs(`times=× cdot=⋅ div=÷ pm=± mp=∓ ast=∗ circ=∘ oplus=⊕ otimes=⊗ leq=≤ le=≤ geq=≥ ge=≥ neq=≠ ne=≠ approx=≈
  equiv=≡ sim=∼ simeq=≃ cong=≅ propto=∝ ll=≪ gg=≫ in=∈ notin=∉ subset=⊂ subseteq=⊆ supset=⊃ supseteq=⊇ cup=∪ cap=∩
  setminus=∖ forall=∀ exists=∃ neg=¬ lnot=¬ land=∧ wedge=∧ lor=∨ vee=∨ to=→ rightarrow=→ leftarrow=← Rightarrow=⇒
  Leftarrow=⇐ implies=⟹ iff=⟺ Leftrightarrow=⇔ leftrightarrow=↔ mapsto=↦ perp=⊥ parallel=∥ mid=∣ langle=⟨ rangle=⟩
  lfloor=⌊ rfloor=⌋ lceil=⌈ rceil=⌉ lvert=| rvert=| vert=| lVert=‖ rVert=‖ Vert=‖ |=‖ {={ }=} therefore=∴ int=∫ iint=∬
  iiint=∭ oint=∮`);
const OVER_AND_UNDER = pairs("sum=∑ prod=∏ bigcup=⋃ bigcap=⋂ lim=lim max=max min=min sup=sup inf=inf");
const FUNCTIONS = new Set(
  "sin cos tan cot arcsin arccos arctan sinh cosh tanh log ln exp det dim ker deg gcd arg Pr".split(" "),
);
const ACCENTS = pairs("hat=^ widehat=^ bar=¯ overline=¯ vec=→ tilde=~ dot=˙ ddot=¨");
const SPACES = pairs(",=0.17em :=0.22em ;=0.28em quad=1em qquad=2em !=-0.17em");
const ENDS = pairs("pmatrix=() bmatrix=[] vmatrix=|| cases={");
const ALIGNED = new Set(["matrix", "pmatrix", "bmatrix", "vmatrix", "cases", "aligned", "align", "align*", "split"]);
const BLACKBOARD = pairs("C=ℂ H=ℍ N=ℕ P=ℙ Q=ℚ R=ℝ Z=ℤ");
const SCRIPT = pairs(`A=𝒜 B=ℬ C=𝒞 D=𝒟 E=ℰ F=ℱ G=𝒢 H=ℋ I=ℐ J=𝒥 K=𝒦 L=ℒ M=ℳ N=𝒩 O=𝒪 P=𝒫 Q=𝒬 R=ℛ S=𝒮 T=𝒯 U=𝒰 V=𝒱 W=𝒲 X=𝒳 Y=𝒴 Z=𝒵`);
const OPERATOR = /[-+*/=<>()[\]|,.;:!?]/;

/** An element, or null where a part of `tex` is not known. `display`: a line of its own. */
export function formula(tex, display) {
  if (tex.length > LONGEST) return null;
  const reader = new Reader(tex);
  const parts = reader.row("");
  if (reader.unknown || !parts.length) return null;
  return m("math", display ? { display: "block" } : {}, ...parts);
}

class Reader {
  #at = 0;
  #depth = 0;
  unknown = false;

  constructor(tex) {
    this.tex = tex;
  }

  #peek() {
    const token = /\s*(\\(?:[a-zA-Z]+|[^])|\d+(?:\.\d+)?|[^\s]|$)/y;
    token.lastIndex = this.#at;
    return { token: token.exec(this.tex)[1], end: token.lastIndex };
  }

  #next() {
    const { token, end } = this.#peek();
    this.#at = end;
    return token;
  }

  #took(wanted) {
    const { token, end } = this.#peek();
    if (token === wanted) this.#at = end;
    return token === wanted;
  }

  /** What stands up to the token `end`, which is taken, too. */
  row(end, ...others) {
    const found = [];
    this.unknown ||= (this.#depth += 1) > DEEPEST;
    while (!this.unknown && !others.includes(this.#peek().token) && !this.#took(end)) {
      if (this.#peek().token === "") this.unknown = true;
      else found.push(...this.#scripted());
    }
    this.#depth -= 1;
    return found;
  }

  /** One letter, number or group, as TeX takes arguments: of 12 the first digit. */
  #argument() {
    const { token, end } = this.#peek();
    if (token === "{") return (this.#at = end), m("mrow", {}, ...this.row("}"));
    if (!/^\d/.test(token)) return m("mrow", {}, ...this.#atom());
    this.#at = end - token.length + 1;
    return m("mn", {}, token[0]);
  }

  /** The text between braces as it stands. */
  #raw() {
    const group = /\s*\{([^{}]*)\}/y;
    group.lastIndex = this.#at;
    const found = group.exec(this.tex);
    if (!found) return (this.unknown = true), "";
    this.#at = group.lastIndex;
    return found[1];
  }

  #scripted() {
    const around = OVER_AND_UNDER.has(this.#peek().token.slice(1));
    const [base, ...more] = this.#peek().token.match(/^[\^_']$/) ? [m("mrow", {})] : this.#atom();
    let [low, high] = [null, null];
    for (;;) {
      if (!low && this.#took("_")) low = this.#argument();
      else if (!high && this.#took("^")) high = this.#argument();
      else if (!high && this.#took("'")) {
        let marks = "′";
        while (this.#took("'")) marks += "′";
        high = m("mrow", {}, m("mo", {}, marks), ...(this.#took("^") ? [this.#argument()] : []));
      } else break;
    }
    if (!base || (!low && !high)) return base ? [base, ...more] : [];
    const kind = around ? ["munder", "mover", "munderover"] : ["msub", "msup", "msubsup"];
    return [m(low && high ? kind[2] : kind[low ? 0 : 1], {}, base, ...[low, high].filter(Boolean)), ...more];
  }

  /** Elements, most often one. */
  #atom() {
    const token = this.#next();
    if (token === "{") return [m("mrow", {}, ...this.row("}"))];
    if (token[0] === "\\" && token.length > 1) return this.#command(token.slice(1));
    if (/^\d/.test(token)) return [m("mn", {}, token)];
    if (/^\p{L}$/u.test(token)) return [m("mi", {}, token)];
    if (OPERATOR.test(token)) return [m("mo", { stretchy: "false" }, token === "-" ? "−" : token)];
    this.unknown = true;
    return [];
  }

  #command(name) {
    if (LETTERS.has(name)) return [m("mi", {}, LETTERS.get(name))];
    if (SIGNS.has(name)) return [m("mo", { stretchy: "false" }, SIGNS.get(name))];
    if (OVER_AND_UNDER.has(name)) return [m("mo", { movablelimits: "true" }, OVER_AND_UNDER.get(name))];
    if (SPACES.has(name)) return [m("mspace", { width: SPACES.get(name) })];
    if (ACCENTS.has(name)) return [m("mover", { accent: "true" }, this.#argument(), m("mo", {}, ACCENTS.get(name)))];
    if (FUNCTIONS.has(name)) return this.#named(name);
    switch (name) {
      case "frac":
      case "dfrac":
      case "tfrac":
        return [m("mfrac", {}, this.#argument(), this.#argument())];
      case "binom":
        return this.#fenced("(", [m("mfrac", { linethickness: "0" }, this.#argument(), this.#argument())], ")");
      case "sqrt":
        return [this.#root()];
      case "text":
      case "textbf":
      case "mathrm":
        return [m("mtext", {}, this.#raw().replaceAll(" ", "\u00a0"))];
      case "operatorname":
        return this.#named(this.#raw());
      case "mathbb":
        return this.#letters(BLACKBOARD);
      case "mathcal":
        return this.#letters(SCRIPT);
      case "mathbf":
      case "boldsymbol":
        return [m("mrow", { class: "bold" }, this.#argument())];
      case "boxed":
      case "displaystyle":
        return name === "boxed" ? [m("mrow", { class: "boxed" }, this.#argument())] : [];
      case "left":
        return this.#stretched();
      case "begin":
        return this.#environment(this.#raw());
      default:
        this.unknown = true;
        return [];
    }
  }

  #letters(alphabet) {
    const letters = [...this.#raw()];
    this.unknown ||= !letters.every((letter) => alphabet.has(letter));
    return letters.map((letter) => m("mi", {}, alphabet.get(letter) ?? letter));
  }

  #named(name) {
    const apart = !/^[({[^_]|^\\left$/.test(this.#peek().token);
    return [m("mi", {}, name), ...(apart ? [m("mspace", { width: "0.17em" })] : [])];
  }

  #root() {
    if (!this.#took("[")) return m("msqrt", {}, this.#argument());
    const degree = m("mrow", {}, ...this.row("]"));
    return m("mroot", {}, this.#argument(), degree);
  }

  #fence() {
    const token = this.#next();
    const sign = token[0] === "\\" ? SIGNS.get(token.slice(1)) : token;
    if (!sign || !/^[.()[\]|/{}⟨⟩⌊⌋⌈⌉‖]$/.test(sign)) this.unknown = true;
    return sign === "." ? "" : sign;
  }

  #stretched() {
    const open = this.#fence();
    const inner = this.row("\\right");
    return this.#fenced(open, inner, this.#fence());
  }

  #fenced(open, inner, close) {
    const sides = [open, close].map((sign) => (sign ? [m("mo", { stretchy: "true" }, sign)] : []));
    return [m("mrow", {}, ...sides[0], ...inner, ...sides[1])];
  }

  #environment(name) {
    if (!ALIGNED.has(name)) return (this.unknown = true), [];
    const rows = [[]];
    while (!this.unknown) {
      rows.at(-1).push(m("mtd", {}, ...this.row("", "&", "\\\\", "\\end")));
      if (this.#took("&")) continue;
      if (this.#took("\\\\")) rows.push([]);
      else if (this.#took("\\end")) break;
      else this.unknown = true;
    }
    if (this.#raw() !== name) this.unknown = true;
    const kind = name.startsWith("align") || name === "split" ? "aligned" : name;
    const body = rows.filter((cells) => cells.some((cell) => cell.firstChild)).map((cells) => m("mtr", {}, ...cells));
    const [open, close] = ENDS.get(name) ?? "";
    return this.#fenced(open, [m("mtable", { class: kind }, ...body)], close);
  }
}
