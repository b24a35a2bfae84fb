"""Word lists for planting errors: common drugs, diagnoses and body parts, written for this project. They are no vocabulary to check by."""

from __future__ import annotations

DRUGS = tuple(
    """
    acetaminophen acyclovir adenosine albuterol alendronate allopurinol alprazolam amiodarone amitriptyline amlodipine amoxicillin
    ampicillin apixaban aripiprazole aspirin atenolol atorvastatin azathioprine azithromycin baclofen bevacizumab bisoprolol
    bisphosphonates budesonide bupropion captopril carbamazepine carboplatin carvedilol cefazolin cefepime ceftriaxone cephalexin
    cetirizine cetuximab ciprofloxacin cisplatin citalopram clindamycin clonazepam clonidine clopidogrel clozapine colchicine
    cyclophosphamide cyclosporine dabigatran dapsone dexamethasone diazepam diclofenac digoxin diltiazem diphenhydramine docetaxel
    donepezil doxorubicin doxycycline duloxetine enalapril enoxaparin epinephrine erythromycin escitalopram esomeprazole estradiol
    etanercept ethambutol etoposide famotidine fentanyl ferrous fluconazole fluorouracil fluoxetine folate fosinopril furosemide
    gabapentin gemcitabine gentamicin glargine glimepiride glipizide glyburide haloperidol heparin hydralazine hydrochlorothiazide
    hydrocodone hydrocortisone hydroxychloroquine hydroxyzine ibuprofen imatinib imipenem infliximab insulin irinotecan isoniazid
    itraconazole ivermectin ketamine ketoconazole ketorolac labetalol lamotrigine lansoprazole levetiracetam levofloxacin levothyroxine
    linezolid lisinopril lithium loperamide loratadine lorazepam losartan meloxicam meropenem metformin methadone methotrexate
    methylprednisolone metoclopramide metoprolol metronidazole midazolam mirtazapine montelukast morphine mycophenolate naloxone
    naproxen nifedipine nitrofurantoin nitroglycerin nivolumab norepinephrine olanzapine omeprazole ondansetron oseltamivir oxaliplatin
    oxcarbazepine oxycodone paclitaxel pantoprazole paracetamol paroxetine pembrolizumab penicillin phenobarbital phenytoin pioglitazone
    piperacillin pravastatin prednisolone prednisone pregabalin prochlorperazine propofol propranolol quetiapine ramipril ranitidine
    rifampicin rifampin risperidone rituximab rivaroxaban rosuvastatin sertraline sildenafil simvastatin sirolimus sitagliptin
    spironolactone sulfasalazine sumatriptan tacrolimus tamoxifen tamsulosin temozolomide ticagrelor tobramycin tocilizumab topiramate
    tramadol trastuzumab trazodone valacyclovir valproate valsartan vancomycin venlafaxine verapamil vincristine voriconazole warfarin
    zolpidem
    """.split()
)

DIAGNOSES = tuple(
    line.strip()
    for line in """
    acute kidney injury, adenocarcinoma, alzheimer's disease, anemia, aneurysm, angina, anxiety, aortic dissection, aortic stenosis,
    appendicitis, arrhythmia, ascites, asthma, atrial fibrillation, bacteremia, bladder cancer, breast cancer, bronchitis, cardiac
    arrest, cardiomyopathy, cataract, cellulitis, cerebral palsy, cholangitis, cholecystitis, cholelithiasis, chronic kidney disease,
    cirrhosis, colitis, colon cancer, congestive heart failure, copd, coronary artery disease, crohn's disease, deep vein thrombosis,
    dementia, depression, dermatitis, diabetes, diabetes mellitus, diverticulitis, eczema, emphysema, encephalitis, endocarditis,
    endometriosis, epilepsy, fibromyalgia, gallstones, gastritis, gerd, glaucoma, glioblastoma, gout, graves' disease, heart failure,
    hepatitis, hepatocellular carcinoma, hernia, herpes zoster, hydrocephalus, hydronephrosis, hyperlipidemia, hypertension,
    hyperthyroidism, hypoglycemia, hyponatremia, hypothyroidism, kidney stones, leukemia, lung cancer, lupus, lymphoma, malaria,
    mastoiditis, melanoma, meningioma, meningitis, migraine, mitral regurgitation, multiple myeloma, multiple sclerosis, myasthenia
    gravis, myocardial infarction, myocarditis, nephrotic syndrome, neuroblastoma, obesity, osteoarthritis, osteomyelitis, osteoporosis,
    osteosarcoma, otitis media, ovarian cancer, pancreatitis, parkinson's disease, pericarditis, peritonitis, pleural effusion,
    pneumonia, pneumothorax, preeclampsia, prostate cancer, psoriasis, pulmonary embolism, pyelonephritis, renal failure,
    rhabdomyolysis, rheumatoid arthritis, sarcoidosis, schizophrenia, sciatica, scoliosis, sepsis, septic arthritis, sinusitis, sleep
    apnea, stroke, subdural hematoma, syphilis, thyroiditis, tonsillitis, tuberculosis, ulcerative colitis, urinary tract infection,
    vasculitis
    """.replace("\n", " ").split(",")
)  # fmt: skip

BODY_PARTS = frozenset(
    """
    abdomen acetabulum adrenal ankle arm artery atrial atrium auricle axilla axillary breast buttock calf carotid cheek chest clavicle
    elbow ear extremity eye eyelid face facial femoral femur fibula finger flank foot forearm frontal groin hand heart heel hemisphere
    hemithorax hip humerus iliac inguinal jaw kidney knee leg limb lobe lower lung main mandible maxilla maxillary middle nostril
    occipital orbit orbital ovary parietal parotid patella pelvis pleural popliteal quadrant radius renal scapula scrotum shoulder side
    sided subclavian temple temporal testicle testis thigh thumb thyroid tibia toe tonsil ulna upper ureter ventricle ventricular wrist
    """.split()
)

MONTHS = (
    "January", "February", "March", "April", "May", "June",
    "July", "August", "September", "October", "November", "December",
)  # fmt: skip

# Both ways; "her" may stand for "his" or "him": either tells the wrong sex.
SEXES = (
    ("he", "she"), ("his", "her"), ("him", "her"), ("himself", "herself"), ("man", "woman"), ("male", "female"), ("boy", "girl"),
    ("gentleman", "lady"), ("mr", "mrs"), ("mr", "ms"), ("men", "women"),
)  # fmt: skip
