"""What the synthetic notes talk about: drugs, conditions, presentations, analytes and phrase banks, written for this project.

Tables are text so that a clinician can read and extend them: one entry a line, fields between bars, alternatives between semicolons.
"""

# ruff: noqa: E501  # a table row stays on one line
from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Drug:
    """`family` ties a drug to the allergen that rules it out; `child_doses` are used under 12 years of age."""

    name: str
    doses: tuple[str, ...]
    route: str
    frequencies: tuple[str, ...]
    family: str
    child_doses: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Condition:
    """A long-term condition: who has it, what it is treated with, which analytes it shifts."""

    name: str
    short: str
    youngest: int
    oldest: int
    sex: str
    drugs: tuple[str, ...]
    analytes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Presentation:
    """Why a patient is seen. `needs` names the condition it presupposes; `shifts` are vital signs with a sign, such as `temp+`."""

    diagnosis: str
    short: str
    youngest: int
    oldest: int
    sex: str
    needs: str
    admitted: bool
    symptoms: tuple[str, ...]
    absent: tuple[str, ...]
    possible: tuple[str, ...]
    findings: tuple[str, ...]
    shifts: tuple[str, ...]
    analytes: tuple[str, ...]
    imaging: tuple[str, ...]
    drugs: tuple[str, ...]
    procedure: str
    follow_up: tuple[str, ...]


def _rows(table: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.split("|")] for line in table.strip().splitlines()]


def _several(cell: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in cell.split(";") if part.strip())


def _words(line: str) -> tuple[str, ...]:
    return tuple(line.split())


def _span(cell: str) -> tuple[int, int]:
    low, high = cell.split("-")
    return int(low), int(high)


# name | doses | route | frequencies | allergen family | doses for a child
_DRUGS = """
metformin | 500 mg; 850 mg; 1,000 mg | oral | twice daily | |
gliclazide | 40 mg; 80 mg | oral | once daily; twice daily | |
empagliflozin | 10 mg; 25 mg | oral | once daily | |
insulin glargine | 14 units; 18 units; 22 units | subcutaneous | at night | | 8 units
insulin aspart | 4 units; 6 units | subcutaneous | with meals | | 2 units
lisinopril | 5 mg; 10 mg; 20 mg | oral | once daily | ace |
ramipril | 2.5 mg; 5 mg; 10 mg | oral | once daily | ace |
losartan | 25 mg; 50 mg; 100 mg | oral | once daily | |
amlodipine | 5 mg; 10 mg | oral | once daily | |
hydrochlorothiazide | 12.5 mg; 25 mg | oral | every morning | sulfa |
atorvastatin | 10 mg; 20 mg; 40 mg; 80 mg | oral | at night | |
rosuvastatin | 5 mg; 10 mg; 20 mg | oral | once daily | |
aspirin | 75 mg; 81 mg | oral | once daily | nsaid |
clopidogrel | 75 mg | oral | once daily | |
apixaban | 2.5 mg; 5 mg | oral | twice daily | |
warfarin | 3 mg; 4 mg; 5 mg | oral | once daily | |
bisoprolol | 1.25 mg; 2.5 mg; 5 mg | oral | once daily | beta |
carvedilol | 6.25 mg; 12.5 mg | oral | twice daily | beta |
digoxin | 62.5 micrograms; 125 micrograms | oral | once daily | |
furosemide | 20 mg; 40 mg; 80 mg | oral | every morning | |
spironolactone | 12.5 mg; 25 mg | oral | once daily | |
levothyroxine | 50 micrograms; 75 µg; 100 micrograms; 125 µg | oral | every morning | |
omeprazole | 20 mg; 40 mg | oral | once daily | |
lansoprazole | 15 mg; 30 mg | oral | every morning | |
sertraline | 50 mg; 100 mg; 150 mg | oral | once daily | |
mirtazapine | 15 mg; 30 mg | oral | at night | |
escitalopram | 5 mg; 10 mg; 20 mg | oral | once daily | |
propranolol | 40 mg; 80 mg | oral | twice daily | beta |
sumatriptan | 50 mg; 100 mg | oral | when needed | |
topiramate | 25 mg; 50 mg | oral | twice daily | |
alendronic acid | 70 mg | oral | once weekly | |
colecalciferol | 800 units; 1,000 units | oral | once daily | |
tamsulosin | 400 micrograms; 0.4 mg | oral | once daily | |
finasteride | 5 mg | oral | once daily | |
methotrexate | 10 mg; 15 mg; 17.5 mg | oral | once weekly | |
folic acid | 5 mg | oral | once weekly | |
hydroxychloroquine | 200 mg; 400 mg | oral | once daily | |
allopurinol | 100 mg; 200 mg; 300 mg | oral | once daily | |
colchicine | 500 micrograms | oral | twice daily | |
levetiracetam | 500 mg; 750 mg; 1 g | oral | twice daily | | 250 mg
lamotrigine | 50 mg; 100 mg; 150 mg | oral | twice daily | | 25 mg
carbidopa-levodopa | 25/100 mg; 12.5/50 mg | oral | three times daily | |
ferrous sulfate | 200 mg; 325 mg | oral | once daily | |
mesalazine | 1.2 g; 2.4 g | oral | once daily | |
methylphenidate | 18 mg; 27 mg | oral | every morning | | 18 mg
cetirizine | 10 mg | oral | once daily | | 5 mg
fluticasone nasal spray | 1 spray; 2 sprays | nasal | once daily | | 1 spray
latanoprost | 1 drop | eye | at night | |
salbutamol inhaler | 2 puffs | inhaled | when needed; 4-hourly if needed | | 2 puffs
beclometasone inhaler | 2 puffs | inhaled | twice daily | | 1 puff
tiotropium inhaler | 2 puffs | inhaled | once daily | |
gabapentin | 100 mg; 300 mg | oral | three times daily | |
metronidazole | 400 mg; 500 mg | oral | three times daily | |
hydrocortisone 1% cream | a thin layer | topical | twice daily | | a thin layer
calcipotriol ointment | a thin layer | topical | once daily | |
norethisterone | 5 mg | oral | three times daily | |
amoxicillin | 500 mg; 1 g | oral | three times daily | penicillin | 125 mg; 250 mg
co-amoxiclav | 625 mg | oral | three times daily | penicillin | 5 mL
flucloxacillin | 500 mg; 1 g | oral | four times daily | penicillin | 250 mg
phenoxymethylpenicillin | 500 mg | oral | four times daily | penicillin | 125 mg
doxycycline | 100 mg; 200 mg | oral | once daily; twice daily | |
clarithromycin | 250 mg; 500 mg | oral | twice daily | | 125 mg
azithromycin | 250 mg; 500 mg | oral | once daily | | 100 mg
nitrofurantoin | 50 mg; 100 mg | oral | twice daily | |
trimethoprim | 200 mg | oral | twice daily | sulfa | 50 mg
ciprofloxacin | 500 mg | oral | twice daily | |
cephalexin | 500 mg | oral | four times daily | | 125 mg
ceftriaxone | 1 g; 2 g | intravenous | once daily | |
prednisolone | 30 mg; 40 mg | oral | every morning | | 20 mg
paracetamol | 1 g; 500 mg | oral | 6-hourly if needed; four times daily | | 120 mg; 250 mg
ibuprofen | 200 mg; 400 mg | oral | three times daily; 8-hourly if needed | nsaid | 100 mg
naproxen | 250 mg; 500 mg | oral | twice daily | nsaid |
codeine | 15 mg; 30 mg | oral | 6-hourly if needed | opioid |
morphine | 2.5 mg; 5 mg | intravenous | 4-hourly if needed | opioid |
ondansetron | 4 mg; 8 mg | oral | 8-hourly if needed | | 2 mg
enoxaparin | 40 mg; 60 mg; 80 mg | subcutaneous | once daily | |
aciclovir | 800 mg | oral | five times daily | |
betahistine | 16 mg | oral | three times daily | |
dexamethasone | 4 mg; 8 mg | oral | once daily | | 2 mg; 4 mg
oral rehydration solution | 1 sachet | oral | when needed | | 1 sachet
"""
DRUGS = {
    name: Drug(name, _several(doses), route, _several(frequencies), family, _several(child) or _several(doses)[:1])
    for name, doses, route, frequencies, family, child in _rows(_DRUGS)
}

# name | short | ages | sex | drugs | analytes (with the direction when treated imperfectly)
_CONDITIONS = """
type 2 diabetes mellitus | T2DM | 35-95 | | metformin; gliclazide; empagliflozin | HbA1c+; glucose+
type 1 diabetes mellitus | T1DM | 8-60 | | insulin glargine; insulin aspart | HbA1c+; glucose+
hypertension | HTN | 35-95 | | lisinopril; amlodipine; losartan; hydrochlorothiazide | creatinine; potassium
hypercholesterolaemia | high chol | 38-95 | | atorvastatin; rosuvastatin | LDL cholesterol+
asthma | asthma | 4-65 | | salbutamol inhaler; beclometasone inhaler |
chronic obstructive pulmonary disease | COPD | 48-95 | | tiotropium inhaler; salbutamol inhaler | WBC
atrial fibrillation | AF | 55-95 | | apixaban; bisoprolol; digoxin | potassium
hypothyroidism | hypothyroid | 22-92 | | levothyroxine | TSH+
osteoarthritis of the knee | knee OA | 50-95 | | paracetamol; naproxen |
gastro-oesophageal reflux disease | GERD | 22-90 | | omeprazole; lansoprazole |
depression | depression | 18-88 | | sertraline; mirtazapine | sodium
generalised anxiety disorder | GAD | 18-75 | | escitalopram; propranolol |
migraine with aura | migraine | 15-58 | | sumatriptan; topiramate |
stage 3 chronic kidney disease | CKD 3 | 55-95 | | ramipril | creatinine+; potassium+
heart failure | HF | 55-95 | | furosemide; carvedilol; spironolactone | BNP+; sodium-
coronary artery disease | CAD | 48-95 | | aspirin; atorvastatin; clopidogrel | troponin
osteoporosis | osteoporosis | 58-95 | female | alendronic acid; colecalciferol | calcium
benign prostatic hyperplasia | BPH | 52-95 | male | tamsulosin; finasteride | PSA+
rheumatoid arthritis | RA | 28-85 | | methotrexate; folic acid; hydroxychloroquine | CRP+
gout | gout | 40-90 | | allopurinol | urate+
epilepsy | epilepsy | 5-82 | | levetiracetam; lamotrigine |
Parkinson's disease | PD | 60-95 | | carbidopa-levodopa |
obstructive sleep apnoea | OSA | 35-78 | | |
iron deficiency anaemia | IDA | 15-80 | | ferrous sulfate | haemoglobin-; ferritin-
endometriosis | endometriosis | 19-48 | female | norethisterone | haemoglobin
ulcerative colitis | UC | 17-70 | | mesalazine | CRP+; haemoglobin-
attention deficit hyperactivity disorder | ADHD | 6-26 | | methylphenidate |
allergic rhinitis | hay fever | 5-60 | | cetirizine; fluticasone nasal spray |
eczema | eczema | 0-45 | | hydrocortisone 1% cream |
plaque psoriasis | psoriasis | 17-75 | | calcipotriol ointment |
open-angle glaucoma | glaucoma | 55-95 | | latanoprost |
diabetic peripheral neuropathy | DPN | 50-92 | | gabapentin |
"""
CONDITIONS = tuple(
    Condition(name, short, *_span(ages), sex, _several(drugs), _several(analytes))
    for name, short, ages, sex, drugs, analytes in _rows(_CONDITIONS)
)

# diagnosis | short | ages | sex | needs | admitted | symptoms | denied | possible | findings | vital shifts | analytes | imaging | drugs (first that suits, then extras) | procedure | follow-up: what @ when
_PRESENTATIONS = """
community-acquired pneumonia | CAP | 18-95 | | | yes | productive cough; fever; breathlessness; pleuritic chest pain | haemoptysis; calf swelling; night sweats | pulmonary embolism | coarse crackles at the right base; bronchial breathing on the right; dull percussion note over the right lower zone | temp+; pulse+; rr+; spo2- | CRP+; WBC+; creatinine | chest X-ray: right lower lobe consolidation without effusion | amoxicillin; doxycycline; + paracetamol | | repeat chest X-ray @ in 6 weeks; GP review @ in 1 week
lower urinary tract infection | UTI | 16-92 | female | | no | dysuria; urinary frequency; suprapubic discomfort | flank pain; rigors; vaginal discharge | pyelonephritis | abdomen soft with mild suprapubic tenderness; renal angles not tender | pulse | urine nitrite+; WBC | | nitrofurantoin; cephalexin | | urine culture result @ in 3 days
acute pyelonephritis | pyelo | 16-85 | female | | yes | fever; flank pain; rigors; dysuria | haematuria; vomiting; diarrhoea | renal abscess | marked right renal angle tenderness; abdomen otherwise soft; looks flushed | temp+; pulse+ | CRP+; WBC+; creatinine | renal ultrasound: no hydronephrosis and no collection | ceftriaxone; ciprofloxacin; + paracetamol | | blood culture result @ in 48 hours; GP review @ in 10 days
acute appendicitis | appendicitis | 7-60 | | | yes | right iliac fossa pain; nausea; anorexia; vomiting | diarrhoea; dysuria; haematuria | mesenteric adenitis | guarding in the right iliac fossa; Rovsing sign positive; bowel sounds scanty | temp+; pulse+ | WBC+; CRP+ | abdominal ultrasound: non-compressible appendix measuring 9 mm | metronidazole; + paracetamol; + ondansetron | laparoscopic appendicectomy | wound check @ in 10 days; surgical clinic @ in 6 weeks
non-ST elevation myocardial infarction | NSTEMI | 45-95 | | | yes | central chest pain; sweating; nausea | palpitations; syncope; fever | aortic dissection | heart sounds normal with no added sounds; chest clear on both sides; no ankle oedema | pulse+; bp+ | troponin+; potassium; creatinine | ECG: T wave inversion in the lateral leads | clopidogrel; + atorvastatin; + enoxaparin | coronary angiography | cardiology clinic @ in 4 weeks; cardiac rehabilitation @ within 2 weeks
acute decompensated heart failure | ADHF | 58-95 | | heart failure | yes | breathlessness; orthopnoea; leg swelling; fatigue | chest pain; fever; palpitations | pneumonia | jugular venous pressure raised to the ear lobe; pitting oedema to both knees; fine crackles to the mid zones | rr+; spo2-; pulse+ | BNP+; sodium-; creatinine+ | chest X-ray: cardiomegaly with upper lobe diversion | furosemide; + spironolactone | | heart failure nurse @ in 5 days; renal function @ in 1 week
infective exacerbation of COPD | IECOPD | 50-95 | | chronic obstructive pulmonary disease | yes | wheeze; breathlessness; green sputum | chest pain; haemoptysis; ankle swelling | pneumothorax | widespread expiratory wheeze; using accessory muscles; speaking in short phrases | rr+; spo2-; pulse+ | CRP+; WBC+ | chest X-ray: hyperinflated lungs and no focal shadowing | doxycycline; + prednisolone; + salbutamol inhaler | | respiratory nurse @ in 2 weeks; spirometry @ in 8 weeks
acute asthma exacerbation | asthma exac | 5-65 | | asthma | no | wheeze; chest tightness; night-time cough | fever; sputum; chest pain | respiratory tract infection | polyphonic wheeze in all zones; able to finish sentences; no cyanosis | rr+; pulse+ | | | prednisolone; + salbutamol inhaler | | asthma nurse @ in 2 days; inhaler technique check @ in 4 weeks
cellulitis of the left lower leg | L leg cellulitis | 25-95 | | | no | leg redness; leg swelling; calf tenderness | rigors; breathlessness; trauma to the leg | deep vein thrombosis | warm erythema from ankle to mid shin with a clear margin; pedal pulses palpable; no blistering | temp+ | CRP+; WBC+ | | flucloxacillin; clarithromycin; + paracetamol | | wound nurse @ in 2 days; GP review @ in 1 week
lateral ligament sprain of the right ankle | R ankle sprain | 10-70 | | | no | ankle pain; ankle swelling; limping | numbness; foot weakness; knee pain | avulsion fracture | tender below the lateral malleolus; able to take four steps; no bony tenderness at the base of the fifth metatarsal | bp | | ankle X-ray: soft tissue swelling and no fracture | ibuprofen; paracetamol | | physiotherapy @ in 2 weeks
fracture of the left distal radius | L distal radius # | 8-92 | | | no | wrist pain; wrist swelling; wrist deformity | numbness; elbow pain; head injury | scaphoid fracture | dorsal angulation at the wrist; median nerve sensation intact; radial pulse strong | pulse+ | | wrist X-ray: dorsally angulated fracture of the distal radius | paracetamol; + codeine | closed reduction and plaster cast | fracture clinic @ in 1 week; repeat wrist X-ray @ in 2 weeks
prolonged migraine attack | migraine | 16-58 | | migraine with aura | no | throbbing headache; photophobia; nausea | neck stiffness; fever; limb weakness | subarachnoid haemorrhage | cranial nerves intact; fundi with sharp discs; gait steady | bp+ | | | sumatriptan; + ondansetron | | neurology clinic @ in 6 weeks
left ureteric stone | L ureteric stone | 20-78 | | | no | colicky loin pain; vomiting; restlessness | fever; dysuria; testicular swelling | abdominal aortic aneurysm | tender in the left loin; abdomen soft; bladder not palpable | pulse+; bp+ | creatinine; urate+; urine blood+ | CT urinary tract: 5 mm stone at the left vesicoureteric junction | naproxen; paracetamol; + tamsulosin; + morphine | | urology stone clinic @ in 3 weeks
viral gastroenteritis | gastroenteritis | 1-85 | | | no | watery diarrhoea; vomiting; abdominal cramps | bloody stools; recent travel; rash | food poisoning | dry lips with good skin turgor; abdomen soft and diffusely uncomfortable; capillary refill 2 seconds | temp+; pulse+ | sodium-; potassium-; creatinine | | oral rehydration solution; + ondansetron | | GP review @ if no better in 3 days
acute otitis media | AOM | 0-11 | | | no | ear pain; fever; irritability | ear discharge; neck stiffness; rash | mastoiditis | left drum red and bulging; right drum normal; mastoid not tender | temp+; pulse+ | | | amoxicillin; clarithromycin; + paracetamol | | ear check @ in 2 weeks
viral croup | croup | 0-6 | | | no | barking cough; hoarse voice; noisy breathing | drooling; cyanosis; choking | inhaled foreign body | soft stridor only when upset; mild subcostal recession; well perfused | temp+; rr+ | | | dexamethasone; + paracetamol | | telephone review @ tomorrow
acute bronchiolitis | bronchiolitis | 0-1 | | | yes | cough; poor feeding; rapid breathing | apnoea; cyanosis; fever above 39 | pertussis | fine crackles in all zones; subcostal recession; fontanelle flat | rr+; spo2-; pulse+ | | | paracetamol | | health visitor @ in 1 week
acute tonsillitis | tonsillitis | 4-45 | | | no | sore throat; fever; painful swallowing | cough; drooling; rash | glandular fever | enlarged tonsils with white exudate; tender nodes at the angle of the jaw; uvula in the midline | temp+; pulse+ | WBC+ | | phenoxymethylpenicillin; clarithromycin; + paracetamol | | GP review @ if no better in 1 week
mechanical low back pain | low back pain | 18-85 | | | no | low back pain; stiffness; muscle spasm | leg weakness; bladder disturbance; saddle numbness | lumbar disc prolapse | paraspinal spasm on both sides; straight leg raise 70 degrees each side; reflexes equal | bp | | | naproxen; paracetamol; + codeine | | physiotherapy @ in 3 weeks
deep vein thrombosis of the right leg | R leg DVT | 25-92 | | | no | calf pain; calf swelling; leg warmth | chest pain; breathlessness; haemoptysis | ruptured Baker's cyst | right calf 4 cm wider than the left; superficial veins prominent; foot warm | pulse+ | D-dimer+; haemoglobin; creatinine | leg Doppler ultrasound: occlusive thrombus in the popliteal vein | apixaban | | anticoagulation clinic @ in 1 week; haematology clinic @ in 3 months
transient ischaemic attack | TIA | 52-95 | | | yes | slurred speech; arm weakness; facial droop | headache; seizure; loss of consciousness | carotid stenosis | power full in all limbs; speech clear now; no visual field loss | bp+ | glucose; LDL cholesterol+ | CT head: no haemorrhage and no established infarct | clopidogrel; + atorvastatin | carotid Doppler ultrasound | stroke clinic @ in 2 weeks; ambulatory ECG monitor @ in 3 weeks
acute gout of the great toe | gout flare | 40-90 | | gout | no | toe pain; toe swelling; skin redness | fever; trauma; rash | septic arthritis | first metatarsophalangeal joint hot and very tender; no tophi; other joints quiet | pulse | urate+; CRP+; creatinine | | colchicine; + paracetamol | | urate level @ in 4 weeks
sigmoid diverticulitis | diverticulitis | 40-90 | | | yes | left iliac fossa pain; fever; constipation | rectal bleeding; vomiting; dysuria | diverticular abscess | localised guarding in the left iliac fossa; no palpable mass; rectum empty | temp+; pulse+ | CRP+; WBC+ | CT abdomen: thickened sigmoid colon with fat stranding | co-amoxiclav; ciprofloxacin; + metronidazole; + paracetamol | | colonoscopy @ in 8 weeks; surgical clinic @ in 6 weeks
acute cholecystitis | cholecystitis | 28-88 | | | yes | right upper quadrant pain; nausea; fever | jaundice; dark urine; weight loss | common bile duct stone | inspiratory arrest on palpation under the right ribs; sclera white; no ascites | temp+; pulse+ | WBC+; CRP+; bilirubin+ | abdominal ultrasound: gallstones with a thickened gallbladder wall | co-amoxiclav; ciprofloxacin; + morphine; + ondansetron | laparoscopic cholecystectomy | surgical clinic @ in 6 weeks
laceration of the left palm | L palm lac | 6-80 | | | no | hand wound; bleeding; hand pain | numbness; finger weakness; foreign body sensation | tendon injury | clean 3 cm wound over the thenar eminence; full flexion of all digits; two-point discrimination normal | pulse | | | paracetamol | wound closure with 4 sutures | suture removal @ in 10 days
benign paroxysmal positional vertigo | BPPV | 30-90 | | | no | spinning dizziness; nausea; unsteadiness | hearing loss; double vision; slurred speech | vestibular neuritis | torsional nystagmus on the right Dix-Hallpike test; finger-nose test accurate; gait cautious | bp | glucose | | betahistine | Epley manoeuvre | balance clinic @ in 4 weeks
herpes zoster of the left chest wall | shingles | 35-95 | | | no | burning chest wall pain; blistering rash; tingling | eye pain; cough; facial weakness | contact dermatitis | grouped vesicles on a red base along one dermatome; no lesions across the midline; chest clear | temp | | | aciclovir; + paracetamol | | GP review @ in 10 days
viral upper respiratory tract infection | viral URTI | 2-80 | | | no | runny nose; sore throat; dry cough; headache | breathlessness; ear pain; rash | influenza | throat mildly red; chest clear; no enlarged neck nodes | temp | | | paracetamol | | GP review @ if no better in 2 weeks
symptomatic iron deficiency anaemia | IDA | 16-85 | | | no | fatigue; breathlessness on stairs; dizziness | black stools; heavy periods; weight loss | coeliac disease | pale conjunctivae; soft flow murmur at the left sternal edge; spleen not felt | pulse+ | haemoglobin-; ferritin- | | ferrous sulfate | upper gastrointestinal endoscopy | full blood count @ in 4 weeks; gastroenterology clinic @ in 5 weeks
new-onset atrial fibrillation | new AF | 50-92 | | | yes | palpitations; fatigue; light-headedness | chest pain; syncope; ankle swelling | thyrotoxicosis | irregularly irregular pulse; no murmur; lungs clear | pulse+; bp | TSH; potassium-; troponin | ECG: atrial fibrillation with a fast ventricular rate | bisoprolol; + apixaban | transthoracic echocardiogram | cardiology clinic @ in 3 weeks
fracture of the right neck of femur | R NOF # | 65-97 | | | yes | hip pain; inability to stand; groin pain | head injury; loss of consciousness; chest pain | pubic ramus fracture | right leg short and externally rotated; foot pulses felt; skin over the heels intact | pulse+; bp | haemoglobin-; sodium; creatinine+ | pelvic X-ray: displaced intracapsular fracture of the right hip | paracetamol; + morphine; + enoxaparin | right hip hemiarthroplasty | fragility fracture clinic @ in 6 weeks; bone density scan @ in 3 months
mild head injury with concussion | concussion | 4-80 | | | no | headache; brief confusion; nausea | loss of consciousness; seizure; repeated vomiting | skull fracture | forehead bruise 2 cm across; pupils equal; no neck tenderness | pulse | | | paracetamol | | GP review @ in 2 weeks
moderate depressive episode | depression | 17-80 | | | no | low mood; poor sleep; loss of appetite; poor concentration | suicidal thoughts; hallucinations; alcohol misuse | bipolar disorder | good eye contact with slow speech; tearful at times; insight preserved | bp | TSH; sodium | | sertraline; + mirtazapine | | talking therapy @ in 3 weeks; GP review @ in 2 weeks
poorly controlled type 2 diabetes mellitus | T2DM poor control | 36-92 | | type 2 diabetes mellitus | no | thirst; fatigue; blurred vision | chest pain; foot ulcer; weight loss | diabetic neuropathy | monofilament felt at all ten sites; foot pulses present; injection sites healthy | bp+ | HbA1c+; creatinine; LDL cholesterol+ | | empagliflozin; + metformin | | HbA1c @ in 3 months; retinal screening @ in 6 weeks
uncontrolled hypertension | HTN | 36-92 | | hypertension | no | morning headache; flushing | chest pain; visual loss; breathlessness | white coat hypertension | apex beat not displaced; no renal bruit; no retinal haemorrhage | bp+ | potassium; creatinine; sodium | ECG: sinus rhythm and no left ventricular strain | amlodipine; losartan | | home blood pressure diary @ in 2 weeks; renal function @ in 10 days
"""


def _presentation(row: list[str]) -> Presentation:
    diagnosis, short, ages, sex, needs, admitted, *lists = row
    symptoms, absent, possible, findings, shifts, analytes, imaging, drugs = (_several(cell) for cell in lists[:8])
    return Presentation(
        diagnosis, short, *_span(ages), sex, needs, admitted == "yes", symptoms, absent, possible, findings, shifts, analytes, imaging, drugs,
        lists[8], _several(lists[9]),
    )  # fmt: skip


PRESENTATIONS = tuple(_presentation(row) for row in _rows(_PRESENTATIONS))


def _floats(cell: str) -> tuple[float, float]:
    low, high = cell.split("-")
    return float(low), float(high)


# analyte | usual low-high | shifted up | shifted down | decimals | unit
_ANALYTES = """
HbA1c | 5.1-5.6 | 7.1-10.4 | 4.6-5.0 | 1 | %
glucose | 4.4-6.2 | 8.4-15.9 | 2.9-3.7 | 1 | mmol/L
creatinine | 58-98 | 118-186 | 40-55 | 0 | µmol/L
potassium | 3.7-4.8 | 5.2-5.9 | 2.9-3.4 | 1 | mEq/L
sodium | 136-143 | 147-151 | 126-133 | 0 | mEq/L
calcium | 2.22-2.48 | 2.66-2.95 | 1.90-2.10 | 2 | mmol/L
LDL cholesterol | 1.6-2.6 | 3.4-5.2 | 1.0-1.4 | 1 | mmol/L
TSH | 0.8-3.6 | 5.4-14.8 | 0.1-0.3 | 1 | mIU/L
WBC | 4.6-9.8 | 12.1-19.7 | 2.1-3.4 | 1 | x10^9/L
CRP | 1-5 | 38-214 | 1-2 | 0 | mg/L
haemoglobin | 122-158 | 168-181 | 74-104 | 0 | g/L
ferritin | 40-180 | 320-610 | 4-11 | 0 | ng/mL
BNP | 20-80 | 480-2140 | 10-18 | 0 | pg/mL
troponin | 3-11 | 64-890 | 2-3 | 0 | ng/L
urate | 240-380 | 450-610 | 150-200 | 0 | µmol/L
PSA | 0.6-2.8 | 4.6-9.8 | 0.2-0.4 | 1 | ng/mL
D-dimer | 110-390 | 860-4200 | 80-100 | 0 | ng/mL
bilirubin | 6-17 | 28-64 | 3-5 | 0 | µmol/L
"""
ANALYTES = {
    name: ((_floats(usual), _floats(up), _floats(down)), int(decimals), unit) for name, usual, up, down, decimals, unit in _rows(_ANALYTES)
}

# substance | family | reactions
ALLERGENS = tuple(
    (name, family, _several(reactions))
    for name, family, reactions in _rows("""
penicillin | penicillin | widespread rash; facial swelling; anaphylaxis
sulfonamides | sulfa | hives; blistering rash
ibuprofen | nsaid | wheeze; lip swelling
codeine | opioid | severe vomiting; itching
lisinopril | ace | tongue swelling; persistent cough
latex | | contact rash; itching
peanuts | | throat tightness; anaphylaxis
shellfish | | hives; vomiting
iodinated contrast | | flushing and wheeze; hives
""")
)
CHILD_ALLERGENS = tuple(a for a in ALLERGENS if a[0] in ("penicillin", "peanuts", "latex"))
# Condition: drug families that are avoided in it.
CONTRAINDICATED = {
    "asthma": ("beta", "nsaid"),
    "heart failure": ("nsaid",),
    "stage 3 chronic kidney disease": ("nsaid",),
    "atrial fibrillation": ("nsaid",),
}
# drug: why it was given up
INTOLERANCES = (("ramipril", "a dry cough"), ("rosuvastatin", "muscle ache"), ("amlodipine", "ankle swelling"), ("naproxen", "heartburn"))

# disease: the sex of the relatives who have it, if it is of one sex
FAMILY_HISTORY = (
    ("breast cancer", "female"), ("ovarian cancer", "female"), ("prostate cancer", "male"), ("bowel cancer", ""), ("stroke", ""),
    ("ischaemic heart disease", ""), ("type 2 diabetes", ""), ("Alzheimer's disease", ""), ("rheumatoid arthritis", ""),
    ("glaucoma", ""), ("aortic aneurysm", "male"), ("osteoporosis", "female"),
)  # fmt: skip
RELATIVES = {"female": ("mother", "maternal aunt", "sister", "grandmother"), "male": ("father", "brother", "uncle", "grandfather")}

# operation | youngest patient | sex
SURGERIES = tuple(
    (name, int(youngest), sex)
    for name, youngest, sex in _rows("""
appendicectomy | 12 |
tonsillectomy | 5 |
right inguinal hernia repair | 25 | male
caesarean section | 22 | female
hysterectomy | 42 | female
left total knee replacement | 58 |
cataract extraction | 62 |
cholecystectomy | 32 |
carpal tunnel release | 35 |
coronary artery bypass grafting | 56 |
knee arthroscopy | 20 |
grommet insertion | 4 |
thyroidectomy | 30 |
transurethral resection of the prostate | 60 | male
""")
)
RESOLVED = (
    "childhood asthma",
    "a duodenal ulcer",
    "a pulmonary embolism",
    "a kidney stone",
    "glandular fever",
    "pneumonia",
    "a wrist fracture",
)

GIVEN_NAMES = {
    "female": _words("Ada Beatrix Noor Ines Marguerite Oluchi Priya Saoirse Wilhelmina Xiu Zofia Renée Carys Dagny Elif Hanneke"),
    "male": _words("Alasdair Bohdan Cormac Dmitri Emeka Farid Giles Hiroshi Ivo Jarek Kwame Llewellyn Matthias Niamke Orson José"),
}
FAMILY_NAMES = _words(
    "Thornbury Okafor Lindqvist Ravensdale Petrossian Vandermeer Castellanos Ashworth Ferreira Mbeki Quillfeather Szymański "
    "Tanaka Underhill Varga Wetherby Yildiz Abernathy Brightwell Coldwater Drăgan Eastwick Fairweather Grünwald Holloway"
)
OCCUPATIONS = _several(
    "bus driver; primary school teacher; electrician; warehouse picker; accountant; baker; librarian; joiner; florist; software tester; "
    "bricklayer; hairdresser; dairy farmer; paralegal; ferry steward; piano tuner"
)
MONTHS = _words("January February March April May June July August September October November December")
DEPARTMENTS = ("general medicine", "emergency", "primary care", "surgery", "outpatients", "community nursing")

# Wording by route and by frequency: long as in letters, short as on an emergency card.
ROUTES = {
    "oral": ("by mouth", "PO"), "subcutaneous": ("subcutaneously", "SC"), "intravenous": ("intravenously", "IV"), "inhaled": ("inhaled", "INH"),
    "nasal": ("into each nostril", "nasal"), "eye": ("into both eyes", "both eyes"), "topical": ("to the affected skin", "topically"),
}  # fmt: skip
FREQUENCIES = {
    "once daily": "OD", "twice daily": "BID", "three times daily": "TID", "four times daily": "QID", "five times daily": "5x/day",
    "at night": "QHS", "every morning": "QAM", "once weekly": "weekly", "when needed": "PRN", "with meals": "with meals",
    "4-hourly if needed": "q4h PRN", "6-hourly if needed": "q6h PRN", "8-hourly if needed": "q8h PRN",
}  # fmt: skip

# Section (canonical, after the first dot a variant of it): headings as writers put them.
HEADINGS = {
    "chief_complaint": ("Chief complaint", "Presenting complaint", "Reason for visit", "Reason for attendance"),
    "history_of_present_illness": ("History of present illness", "History of presenting complaint", "HPI", "Interval history"),
    "past_medical_history": ("Past medical history", "Medical history", "PMH", "Background"),
    "past_surgical_history": ("Past surgical history", "Surgical history", "Previous operations"),
    "medications": ("Medications", "Current medications", "Regular medications", "Medication list"),
    "medications.discharge": ("Discharge medications", "Medications on discharge", "Medicines to take home"),
    "allergies": ("Allergies", "Drug allergies", "Allergies and reactions"),
    "family_history": ("Family history", "FH"),
    "social_history": ("Social history", "Social", "Lifestyle"),
    "vital_signs": ("Vital signs", "Vitals", "Observations"),
    "physical_examination": ("Examination", "Physical examination", "Exam", "On examination"),
    "results": ("Results", "Investigations", "Laboratory results", "Labs"),
    "hospital_course": ("Hospital course", "Course in hospital", "Progress on the ward"),
    "diagnoses": ("Principal diagnosis", "Main diagnosis", "Discharge diagnosis"),
    "assessment": ("Assessment", "Impression", "Clinical impression"),
    "plan": ("Plan", "Management plan", "Recommendations"),
    "procedures": ("Procedures", "Procedures performed", "Operations and procedures"),
    "follow_up": ("Follow-up", "Follow up arrangements", "Appointments"),
}
